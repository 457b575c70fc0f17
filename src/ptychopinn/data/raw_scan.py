"""A scan as a file of any format has it, before it is checked; formats and conversions work on this."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ptychopinn.data.bad_values import OFFSETS_KEY, PIXELS_KEY, BadValues
from ptychopinn.data.dataset import Measurement, ScanDataset, ScanMetadata
from ptychopinn.data.diagnostics import Problem
from ptychopinn.data.scan_file import ArrayInMemory, ArrayMember, ScanFile
from ptychopinn.errors import DataError
from ptychopinn.probe_variation import MODES_KEY, WEIGHTS_KEY, ProbeVariation
from ptychopinn.short_repr import ShortRepr
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray, IntArray

EV_METRES = 1.2398419843320026e-06  # h c / e (CODATA 2018, exact): energy in eV times wavelength in metres
JOULE_PER_EV = 1.602176634e-19
_MAX_ENERGY_EV = 1e9


@dataclass(frozen=True)
class Geometry:
    """Where a scan was measured; None for what is not known.

    Attributes
    ----------
    energy_eV:
        Photon energy.
    distance_m:
        From sample to detector.
    detector_pixel_m:
        (y, x) size of a detector pixel.
    object_pixel_m:
        (y, x) size of an object pixel, where the file says it; else `pixel_m` computes it.
    """

    energy_eV: float | None = None  # noqa: N815 - the unit's own spelling
    distance_m: float | None = None
    detector_pixel_m: tuple[float, float] | None = None
    object_pixel_m: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("energy_eV", "distance_m", "detector_pixel_m", "object_pixel_m"):
            value = getattr(self, name)
            if value is not None and not all(math.isfinite(v) and v > 0 for v in np.atleast_1d(value)):
                object.__setattr__(self, name, None)  # files write 0 for what they do not know

    @property
    def wavelength_m(self) -> float | None:
        """``h c / E`` in metres."""
        return None if self.energy_eV is None else EV_METRES / self.energy_eV

    def pixel_m(self, shape: tuple[int, int]) -> tuple[tuple[float, float], str] | None:
        """Size of an object pixel for patterns of (H, W), and how it was computed, in words.

        Far field: ``wavelength * distance / (N * detector pixel)`` along each axis (Goodman, Introduction to Fourier
        Optics, ch. 4). The size that the file says comes first.
        """
        if self.object_pixel_m is not None:
            y, x = self.object_pixel_m
            return self.object_pixel_m, f"The object pixel is {x:.6g} m, as the file says." + _other(y, x)
        if self.wavelength_m is None or self.distance_m is None or self.detector_pixel_m is None:
            return None
        y, x = (
            self.wavelength_m * self.distance_m / (n * p) for n, p in zip(shape, self.detector_pixel_m, strict=True)
        )
        note = (
            f"Object pixel = wavelength x distance / (N x detector pixel) = {self.wavelength_m:.6g} m x "
            f"{self.distance_m:.6g} m / ({shape[1]} x {self.detector_pixel_m[1]:.6g} m) = {x:.6g} m "
            f"(photon energy {self.energy_eV:.6g} eV)." + _other(y, x)
        )
        return (y, x), note


def _other(y: float, x: float) -> str:
    return "" if math.isclose(y, x, rel_tol=1e-6) else f" Along y it is {y:.6g} m."


@dataclass(frozen=True, eq=False, repr=False)
class RawScan(ShortRepr):
    """The arrays of a scan; nothing is checked but their shapes.

    Attributes
    ----------
    patterns:
        (n, H, W) real, DC at ``[H//2, W//2]``.
    positions:
        (n, 2) float64 (y, x) of the probe on the object, in ``unit``; None if the file has none.
    unit:
        Of the positions: object pixels or metres.
    measurement:
        Domain of the patterns; None if the file does not say.
    legacy_key:
        Whether patterns without a ``measurement`` come from the key ``diff3d``.
    probe:
        (modes, H, W) complex, or None.
    probe_variation:
        How its first mode varies over the patterns; or None.
    object_guess:
        (h, w) complex in the frame of the positions, which then are in pixels; or None.
    patches:
        (n, H, W) complex known patches, or None.
    scan_index:
        (n,) int, or None for one scan.
    bad_pixels:
        (H, W) bool, True is bad; or None.
    bad_values:
        Other pixels that are bad in some patterns; or None.
    geometry:
        Energy, distance and pixels.
    metadata:
        All else.
    notes, warnings:
        What was done, and what the user should look at, as sentences.
    mended:
        Findings of checks that were made already.
    """

    patterns: AnyArray
    positions: FloatArray | None
    unit: Literal["px", "m"] = "px"
    measurement: Measurement | None = Measurement.COUNTS
    legacy_key: bool = True
    probe: ComplexArray | None = None
    probe_variation: ProbeVariation | None = None
    object_guess: ComplexArray | None = None
    patches: ComplexArray | None = None
    scan_index: IntArray | None = None
    bad_pixels: BoolArray | None = None
    bad_values: BadValues | None = None
    geometry: Geometry = field(default_factory=Geometry)
    metadata: ScanMetadata = field(default_factory=ScanMetadata)
    name: str = "scan"
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    mended: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        if self.patterns.ndim != 3 or 0 in self.patterns.shape or self.patterns.dtype.kind not in "biuf":
            raise DataError(
                f"The patterns have the shape {self.patterns.shape} and the dtype {self.patterns.dtype}.",
                "Give real patterns of the shape (n, H, W), at least one.",
            )
        n, height, width = self.patterns.shape
        expected: dict[str, tuple[int, ...]] = {
            "positions": (n, 2),
            "patches": (n, height, width),
            "scan_index": (n,),
            "bad_pixels": (height, width),
        }
        for name, shape in expected.items():
            if (array := getattr(self, name)) is not None and array.shape != shape:
                raise DataError(
                    f"The {name.replace('_', ' ')} have the shape {array.shape}; with {n} patterns of {height} x "
                    f"{width} it must be {shape}.",
                    "Give every pattern its entry, in the same order.",
                )
        bad = self.bad_values
        if bad is not None and (len(bad), *bad.size) != (n, height, width):
            raise DataError(
                f"The bad values are of {len(bad)} patterns of {bad.size}; there are {n} of {height} x {width}.",
                "Give every pattern its own, in the same order.",
            )
        if self.probe is not None and self.probe.ndim != 3:
            raise DataError(f"The probe has the shape {self.probe.shape}.", "Give it as (modes, H, W).")
        if (variation := self.probe_variation) is not None:
            fits = self.probe is not None and variation.modes.shape[1:] == self.probe.shape[1:]
            if not fits or variation.weights.shape != (n, len(variation.modes)):
                raise DataError(
                    f"The variation of the probe has modes of shape {variation.modes.shape} and weights of shape "
                    f"{variation.weights.shape}; there are {n} patterns, and the probe has the shape "
                    f"{None if self.probe is None else self.probe.shape}.",
                    "Give every pattern its weights, and modes of the size of the probe.",
                )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of a pattern."""
        return int(self.patterns.shape[1]), int(self.patterns.shape[2])

    def with_probe(self, change: Callable[[ComplexArray], ComplexArray]) -> RawScan:
        """A copy with the probe, and what varies of it, changed by a linear function of (modes, H, W)."""
        if self.probe is None:
            return self
        variation = self.probe_variation
        return replace(
            self,
            probe=change(self.probe),
            probe_variation=None if variation is None else variation.map_modes(change),
        )

    def with_changes(self, note: str = "", **changes: object) -> RawScan:
        """A copy with some attributes changed and a note added."""
        notes = (*self.notes, note) if note else self.notes
        return replace(self, notes=notes, **changes)  # type: ignore[arg-type]


def is_amplitude(raw: RawScan) -> bool:
    """Whether patterns are amplitudes, as far as the file says (`ptychopinn.data.units` decides on reading)."""
    return raw.measurement is Measurement.AMPLITUDE or (raw.measurement is None and not raw.legacy_key)


def pattern_sums(raw: RawScan) -> FloatArray:
    """(n,) light of each pattern outside the bad pixels, in counts; NaN where values are not finite.

    Bad values of single patterns count as what their pixel has on average.
    """
    good = np.ones(raw.size, bool) if raw.bad_pixels is None else ~raw.bad_pixels
    sums, total = np.empty(len(raw.patterns)), np.zeros(raw.size)
    for start, block in measured_blocks(raw):
        values = np.where(good, block**2 if is_amplitude(raw) else block, 0)
        sums[start : start + len(block)] = values.sum(axis=(1, 2))
        total += values.sum(axis=0)
    if raw.bad_values is not None:
        rows, pixels = raw.bad_values.entries(slice(None))
        mean = (total / np.maximum(len(sums) - raw.bad_values.times, 1)).ravel()
        sums += np.bincount(rows, np.where(np.isfinite(mean), mean, 0)[pixels], len(sums))
    return np.where(np.isfinite(sums), sums, np.nan)


def measured_blocks(raw: RawScan) -> Iterator[tuple[int, FloatArray]]:
    """Patterns some MiB at a time, (b, H, W) float64 with 0 for bad values of single patterns; each with its start."""
    step = patterns_at_once(raw)
    for start in range(0, len(raw.patterns), step):
        block = np.array(raw.patterns[start : start + step], np.float64)
        if raw.bad_values is not None:
            raw.bad_values.put(block, slice(start, start + step), 0)
        yield start, block


def patterns_at_once(raw: RawScan) -> int:
    """How many patterns a pass takes at a time: some MiB."""
    return max(1, (1 << 22) // (raw.size[0] * raw.size[1]))


def positions_of(raw: RawScan) -> FloatArray:
    """The positions (n, 2) (y, x), in the unit of the scan. Raises DataError if there are none."""
    if raw.positions is None:
        raise DataError("The scan has no positions.", "Give them: ptychopinn convert --positions FILE.")
    return raw.positions


def to_pixels(raw: RawScan) -> RawScan:
    """Positions in object pixels, and the size of a pixel in the geometry; the computation is a note.

    Raises
    ------
    DataError
        If positions are in metres and the size of an object pixel is not known.
    """
    found = raw.geometry.pixel_m(raw.size)
    if found is None:
        if raw.unit == "px" or raw.positions is None:
            return raw
        missing = [
            name.replace("_eV", "").replace("_m", "").replace("_", " ")
            for name in ("energy_eV", "distance_m", "detector_pixel_m")
            if getattr(raw.geometry, name) is None
        ]
        raise DataError(
            f"The positions are in metres, and the object pixel is not known: the file lacks {', '.join(missing)}.",
            "Give it: ptychopinn convert --pixel-size METRES, or --energy, --distance and --detector-pixel; in Python "
            "pixel_size=, or energy=, distance= and detector_pixel=.",
        )
    pixel, note = found
    geometry = replace(raw.geometry, object_pixel_m=pixel)
    if raw.unit == "px" or raw.positions is None:
        return raw.with_changes(note, geometry=geometry) if raw.geometry.object_pixel_m is None else raw
    positions = np.asarray(raw.positions, np.float64) / pixel
    return raw.with_changes(note, positions=positions, unit="px", geometry=geometry)


def metadata_of(raw: RawScan) -> ScanMetadata:
    """Metadata with the geometry; the pixel size only if object pixels are square."""
    geometry, pixel = raw.geometry, raw.geometry.object_pixel_m
    known = {
        "measurement": raw.measurement,
        "pixel_size_m": pixel[1] if pixel is not None and math.isclose(*pixel, rel_tol=1e-3) else None,
        "probe_energy_eV": geometry.energy_eV,
        "detector_distance_m": geometry.distance_m,
    }
    return raw.metadata.model_copy(update={name: value for name, value in known.items() if value is not None})


def dataset_of(raw: RawScan) -> ScanDataset:
    """The scan of arrays that need no more checks, with square patterns and positions in pixels.

    Raises
    ------
    DataError
        If it has no positions, no probe or no domain.
    """
    if raw.positions is None or raw.probe is None or raw.measurement is None:
        raise DataError(f"'{raw.name}' lacks positions, a probe or the domain of its patterns.", "Give all three.")
    return ScanDataset(
        patterns=raw.patterns,
        measurement=raw.measurement,
        positions=raw.positions,
        probe=raw.probe,
        probe_variation=raw.probe_variation,
        object_guess=raw.object_guess,
        patches_guess=raw.patches,
        scan_index=raw.scan_index,  # type: ignore[arg-type]
        bad_pixels=raw.bad_pixels,  # type: ignore[arg-type]
        bad_values=raw.bad_values,
        metadata=metadata_of(raw),
        name=raw.name,
    )


def arrays_by_key(scan: RawScan | ScanDataset, metadata: ScanMetadata) -> dict[str, AnyArray]:
    """What a scan has beside patterns and patches, under the names of the contract; positions in pixels."""
    positions, bad, variation = scan.positions, scan.bad_values, scan.probe_variation
    arrays = {
        "xcoords": None if positions is None else positions[:, 1],
        "ycoords": None if positions is None else positions[:, 0],
        "probeGuess": scan.probe,
        "objectGuess": scan.object_guess,
        "scan_index": scan.scan_index,
        "bad_pixels": scan.bad_pixels,
        OFFSETS_KEY: None if bad is None else bad.offsets,
        PIXELS_KEY: None if bad is None else bad.pixels,
        MODES_KEY: None if variation is None else variation.modes,
        WEIGHTS_KEY: None if variation is None else variation.weights,
        "_metadata": np.array(metadata.model_dump_json()),
    }
    return {key: array for key, array in arrays.items() if array is not None}


def as_scan_file(raw: RawScan, path: Path) -> ScanFile:
    """The arrays under the names of the contract, for `ptychopinn.data.contract.interpret`; positions in pixels."""
    key = "diff3d" if raw.measurement is Measurement.COUNTS or raw.legacy_key else "diffraction"
    arrays = {key: raw.patterns, **({} if raw.patches is None else {"Y": raw.patches})}
    arrays |= arrays_by_key(raw, metadata_of(raw))
    members: dict[str, ArrayMember] = {name: ArrayInMemory(array) for name, array in arrays.items()}
    return ScanFile(path, members, {}, notes=raw.notes, warnings=raw.warnings, mended=raw.mended)
