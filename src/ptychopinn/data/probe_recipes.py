"""Make the first probe of a scan that has none, from what is known of the optics or from the mean pattern."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptychopinn.data.raw_scan import RawScan, is_amplitude, measured_blocks, to_pixels
from ptychopinn.data.scan_steps import mark_gaps
from ptychopinn.data.sizes import resample_probe
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.typing import ComplexArray, FloatArray

_KINDS: Mapping[str, tuple[str, ...]] = {
    "mean": ("defocus",),
    "aperture": ("diameter", "defocus"),
    "gaussian": ("fwhm", "defocus"),
    "zone-plate": ("diameter", "outer_width", "stop", "defocus"),
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "mean": (),
    "aperture": ("diameter",),
    "gaussian": ("fwhm",),
    "zone-plate": ("diameter", "outer_width"),
}
_EDGE_PX = 0.7  # softness of an aperture's edge


@dataclass(frozen=True)
class ProbeRecipe:
    """How to make a probe."""

    kind: str  # mean, aperture, gaussian or zone-plate
    lengths: Mapping[str, tuple[float, str]]  # name to value and unit, "m" or "px" (object pixels)


def parse_recipe(text: str) -> ProbeRecipe:
    """The recipe in a text such as ``aperture:diameter=2e-6,defocus=1e-3`` or ``gaussian:fwhm=12px``.

    Raises
    ------
    ConfigError
        If it is not one; the error lists the kinds and their lengths.
    """
    kind, _, rest = text.strip().partition(":")
    if kind not in _KINDS:
        raise ConfigError(f"There is no probe '{text[:100]}' to make.", f"Give a file, or one of: {_described()}.")
    lengths: dict[str, tuple[float, str]] = {}
    for part in (part.strip() for part in rest.split(",") if part.strip()):
        name, _, value = part.partition("=")
        name = name.strip().replace("-", "_")
        unit = "px" if value.strip().endswith("px") else "m"
        try:
            number = float(value.strip().removesuffix("px").removesuffix("m"))
        except ValueError:
            number = math.nan
        if name not in _KINDS[kind] or not math.isfinite(number) or (number <= 0 and name != "defocus"):
            raise ConfigError(f"'{part[:100]}' of the probe '{kind}' is not understood.", f"Give: {_described()}.")
        lengths[name] = (number, unit)
    if missing := [name for name in _NEEDED[kind] if name not in lengths]:
        raise ConfigError(f"The probe '{kind}' needs {' and '.join(missing)}.", f"Give: {_described()}.")
    return ProbeRecipe(kind, lengths)


def _described() -> str:
    parts = [f"{kind}:{','.join(f'{name}=' for name in names)}" for kind, names in _KINDS.items()]
    return "; ".join(parts) + " (metres, or with px object pixels; defocus in metres)"


def make_probe(raw: RawScan, text: str) -> RawScan:
    """A scan with the probe that a recipe makes, scaled to the mean counts of its patterns.

    Raises
    ------
    ConfigError
        If the text is no recipe.
    DataError
        If a length in metres is given and the object pixel is not known, or the probe does not fit its window.
    """
    recipe = parse_recipe(text)
    raw = mark_gaps(to_pixels(raw))
    maker = _Maker(raw, recipe)
    wave = maker.make()
    energy = maker.photons
    norm = float((np.abs(wave) ** 2).sum())
    if not (math.isfinite(norm) and norm > 0):
        raise DataError(f"The probe '{text}' is zero everywhere.", "Give lengths that fit the window of the patterns.")
    probe = (wave * math.sqrt(energy / norm))[None].astype(np.complex64)
    return raw.with_changes(
        f"Probe made: {text}; it is a first guess, refined by training and refinement.",
        probe=probe,
        probe_variation=None,
    )


class _Maker:
    """Makes (H, W) complex waves, centred on the window, of any scale."""

    def __init__(self, raw: RawScan, recipe: ProbeRecipe) -> None:
        self._raw, self._recipe = raw, recipe
        self._size = raw.size
        self._mean = _mean_counts(raw)

    @property
    def photons(self) -> float:
        """Mean counts of a pattern; 1 if there are none."""
        total = float(self._mean.sum())
        return total if math.isfinite(total) and total > 0 else 1.0

    def make(self) -> ComplexArray:
        """The wave at the sample."""
        kinds = {
            "mean": self._from_mean,
            "aperture": self._aperture,
            "gaussian": self._gaussian,
            "zone-plate": self._zone_plate,
        }
        return self._propagated(kinds[self._recipe.kind]())

    def _from_mean(self) -> ComplexArray:
        """The probe in focus with the mean pattern as its far field."""
        return self._from_far_field(np.sqrt(self._mean))

    def _aperture(self) -> ComplexArray:
        radius = self._pixels("diameter") / 2
        return np.asarray(_soft_disc(self._radii(), radius), complex)

    def _gaussian(self) -> ComplexArray:
        """``fwhm`` is that of the intensity."""
        sigma = self._pixels("fwhm") / (2 * math.sqrt(2 * math.log(2)))
        return np.asarray(np.exp(-(self._radii() ** 2) / (4 * sigma**2)), complex)

    def _zone_plate(self) -> ComplexArray:
        """Focus of a zone plate: its far field is a disc, less the central stop.

        A zone plate of diameter D and outermost zone w has the focal length D w / wavelength (Attwood, Soft X-Rays and
        Extreme Ultraviolet Radiation, ch. 9); a ray from radius r meets the detector's spatial frequency r /
        (wavelength f), so the disc ends at 1 / (2 w).
        """
        pixel = self._pixel()
        outer, diameter = self._metres("outer_width"), self._metres("diameter")
        stop = self._metres("stop") if "stop" in self._recipe.lengths else 0.0
        cycles = [np.fft.fftshift(np.fft.fftfreq(n, p)) for n, p in zip(self._size, pixel, strict=True)]
        frequency = np.hypot(cycles[0][:, None], cycles[1])
        edge = 1 / (2 * outer)
        step = _EDGE_PX * 2 / (self._size[1] * pixel[1])
        far = 1 / (1 + np.exp(np.clip((frequency - edge) / step * 4, -60, 60)))
        if stop > 0:
            far = far * (1 - 1 / (1 + np.exp(np.clip((frequency - edge * stop / diameter) / step * 4, -60, 60))))
        return self._from_far_field(far)

    def _from_far_field(self, far: FloatArray) -> ComplexArray:
        """The wave, centred on ``(N - 1) / 2``, of an amplitude in far field with DC at ``[N//2, N//2]``."""
        to_centre = [np.exp(-1j * np.pi * (np.arange(n) - n // 2) * (n - 1) / n) for n in self._size]
        wave: ComplexArray = np.fft.ifft2(np.fft.ifftshift(far * to_centre[0][:, None] * to_centre[1]))
        return wave

    def _propagated(self, wave: ComplexArray) -> ComplexArray:
        """Moved along the beam by the defocus (Fresnel, Goodman ch. 4): positive is downstream of the focus."""
        if "defocus" not in self._recipe.lengths:
            return wave
        distance = self._metres("defocus")
        wavelength = self._raw.geometry.wavelength_m
        if wavelength is None:
            raise DataError("defocus needs the photon energy, which the scan does not say.", "Give --energy too.")
        cycles = [np.fft.fftfreq(n, p) for n, p in zip(self._size, self._pixel(), strict=True)]
        square = cycles[0][:, None] ** 2 + cycles[1] ** 2
        moved: ComplexArray = np.fft.ifft2(np.fft.fft2(wave) * np.exp(-1j * math.pi * wavelength * distance * square))
        return moved

    def _radii(self) -> FloatArray:
        y, x = ((np.arange(n) - (n - 1) / 2) for n in self._size)
        return np.asarray(np.hypot(y[:, None], x))

    def _pixel(self) -> tuple[float, float]:
        pixel = self._raw.geometry.object_pixel_m
        if pixel is None and (stated := self._raw.metadata.pixel_size_m) is not None:
            pixel = (stated, stated)
        if pixel is None:
            raise DataError(
                "The probe is given in metres, and the scan does not say its object pixel.",
                "Give --pixel-size too, or lengths in pixels, such as 12px.",
            )
        return pixel

    def _metres(self, name: str) -> float:
        value, unit = self._recipe.lengths[name]
        return value if unit == "m" else value * self._pixel()[1]

    def _pixels(self, name: str) -> float:
        value, unit = self._recipe.lengths[name]
        return value if unit == "px" else value / self._pixel()[1]


def _soft_disc(radii: FloatArray, radius: float) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(np.clip((radii - radius) / _EDGE_PX, -60, 60))))


def _mean_counts(raw: RawScan) -> FloatArray:
    """(H, W) mean counts, 0 at bad pixels and where values are not finite or negative."""
    total, amplitude = np.zeros(raw.size), is_amplitude(raw)
    for _, values in measured_blocks(raw):
        block = np.where(np.isfinite(values) & (values > 0), values, 0.0)
        total += (block**2 if amplitude else block).sum(axis=0)
    if raw.bad_pixels is not None:
        total[raw.bad_pixels] = 0
    count = len(raw.patterns)
    return total / (count if raw.bad_values is None else np.maximum(count - raw.bad_values.times, 1))


def is_recipe(text: str) -> bool:
    """Whether a text is meant as a recipe and not as the path of a file."""
    return text.strip().partition(":")[0] in _KINDS or not Path(text).exists()


def use_probe(raw: RawScan, probe: ComplexArray, source: str) -> RawScan:
    """A scan with another probe, which is resampled to the size of the patterns; both see the same window.

    Raises
    ------
    DataError
        If it is no probe.
    """
    if probe.ndim != 3 or probe.dtype.kind not in "fc" or 0 in probe.shape:
        raise DataError(f"The probe of {source} has the shape {probe.shape}.", "Give one of (modes, N, N).")
    note = f"The probe is that of {source}."
    if probe.shape[1:] != raw.size:
        note += f" It is resampled from {probe.shape[1:]} to {raw.size} pixels of the same window."
        probe = resample_probe(probe, raw.size)
    return raw.with_changes(note, probe=np.asarray(probe, np.complex64), probe_variation=None)
