"""A scan in Python: read from files or made of arrays, always through the same checks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ptychopinn.api._settings import settings_for
from ptychopinn.api._xarray import dataset_of_arrays
from ptychopinn.config.build import build
from ptychopinn.config.simulation import SimulationConfig
from ptychopinn.data.convert import convert_raw, read_converted
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.from_arrays import mend_scan
from ptychopinn.data.probe_recipes import use_probe
from ptychopinn.data.raw_scan import RawScan
from ptychopinn.data.scaling import mean_pattern
from ptychopinn.data.scan_steps import centre_patterns, mask_pixels, set_positions
from ptychopinn.errors import DataError, UsageError
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.report import card_html, card_picture, draw_pattern, draw_positions, draw_probe, new_axes
from ptychopinn.simulate import probe_width_px
from ptychopinn.simulate import simulate_scan as simulate_dataset
from ptychopinn.typing import AnyArray, ComplexArray, StrPath
from ptychopinn.workflows import Inspection, inspect_scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SAMPLE = 512  # evenly spread patterns that the mean pattern is made of


@dataclass(frozen=True, eq=False, repr=False)
class Scan(ScanDataset):
    """A `ptychopinn.data.dataset.ScanDataset` that passed the checks of a file, with pictures."""

    def __repr__(self) -> str:
        return f"Scan('{self.name}': {', '.join(f'{name} {value}' for name, value in self._facts().items())})"

    def _facts(self) -> dict[str, object]:
        pixel = self.metadata.pixel_size_m
        return {
            "patterns": f"{len(self)} x {self.N} x {self.N}",
            "measurement": str(self.measurement),
            "photons": f"{self.metadata.nphotons or 0:.3g} a pattern",
            "modes": len(self.probe),
            **({} if pixel is None else {"pixel": f"{pixel * 1e9:.4g} nm"}),
            "findings": len(self.findings),
        }

    def _repr_html_(self) -> str:
        png = card_picture(self.plot, self.plot_positions, self.plot_probe)
        return card_html(f"Scan {self.name}", png, self._facts(), [one.text for one in self.findings])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the mean pattern; on new axes if none are given. Returns the axes."""
        ax = new_axes() if ax is None else ax
        draw_pattern(ax, mean_pattern(self, _SAMPLE), self.bad_pixels)
        return ax

    def plot_probe(self, ax: Axes | None = None, mode: int = 0) -> Axes:
        """Draw a mode of the probe, phase as hue and amplitude as brightness. Returns the axes."""
        ax = new_axes() if ax is None else ax
        draw_probe(ax, self.probe, mode, self.metadata.pixel_size_m)
        return ax

    def plot_positions(self, ax: Axes | None = None) -> Axes:
        """Draw the positions in their order, and the width of the probe. Returns the axes."""
        ax = new_axes() if ax is None else ax
        draw_positions(ax, self.positions, probe_width_px(self.probe), self.metadata.pixel_size_m)
        return ax

    def inspect(self) -> Inspection:
        """Try which axes, signs, scale, order and probe fit, as ``ptychopinn inspect`` does."""
        return inspect_scan(self)

    def to_xarray(self) -> Any:
        """An ``xarray.Dataset`` with patterns, positions, probe and masks; positions in pixels.

        Raises
        ------
        PluginError
            If xarray is not installed.
        """
        arrays: dict[str, tuple[tuple[str, ...], AnyArray]] = {
            "patterns": (("pattern", "qy", "qx"), self.raw(slice(None))),
            "positions": (("pattern", "axis"), self.positions),
            "probe": (("mode", "v", "u"), self.probe),
            "bad_pixels": (("qy", "qx"), self.bad_pixels),
            "scan_index": (("pattern",), self.scan_index),
        }
        if self.bad_values is not None:
            arrays["bad_values"] = (("pattern", "qy", "qx"), self.bad_values.masks(slice(None)))
        if (variation := self.probe_variation) is not None:
            arrays["probe_variation"] = (("varying_mode", "v", "u"), variation.modes)
            arrays["probe_variation_weights"] = (("pattern", "varying_mode"), variation.weights)
        attributes = {"measurement": str(self.measurement), "counts_per_unit": self.counts_per_unit, "name": self.name}
        return dataset_of_arrays(arrays, {"axis": ["y", "x"]}, attributes)


def scan_of(given: object) -> Scan:
    """A scan as it is, of a dataset (through the checks of arrays) or of a file.

    Raises
    ------
    UsageError
        If it is something else.
    """
    if isinstance(given, Scan):
        return given
    if isinstance(given, ScanDataset):
        mended = mend_scan(given)
        return Scan(**{one.name: getattr(mended, one.name) for one in fields(ScanDataset)})
    if isinstance(given, str | os.PathLike):
        return read(given)
    raise UsageError(
        f"A scan is needed; this is of the type {type(given).__name__}.",
        "Give ptychopinn.read(PATH), or ptychopinn.read(patterns, positions=..., probe=...).",
    )


def read(  # noqa: PLR0913
    source: StrPath | Sequence[StrPath] | AnyArray | ScanDataset,
    *,
    positions: AnyArray | str | None = None,
    probe: AnyArray | str | None = None,
    bad_pixels: AnyArray | None = None,
    scan_index: AnyArray | None = None,
    object_guess: ComplexArray | None = None,
    name: str = "scan",
    **settings: object,
) -> Scan:
    """Read a scan of a file, or make one of arrays. Both pass the same checks, which are logged.

    Parameters
    ----------
    source:
        A file of any format that has a reader, or several files of one object; or (n, H, W) patterns of any real dtype,
        DC at ``[H//2, W//2]`` (of a masked array, masked values are bad); or a dataset.
    positions:
        (n, 2) (y, x) of the probe on the object, in object pixels or in ``position_unit``; or a file with them.
    probe:
        (modes, H, W) or (H, W) complex in any scale; or a file, or how to make one: ``"mean"``,
        ``"zone-plate:diameter=200e-6,outer_width=50e-9,defocus=1e-3"``.
    bad_pixels:
        (H, W), or (n, H, W) with a mask a pattern; what is not 0 has no measurement.
    scan_index:
        (n,) number of the scan of each pattern, of arrays.
    object_guess:
        (h, w) complex in the frame of the positions, of arrays: a known object to compare with.
    name:
        Name of a scan of arrays.
    settings:
        Flags of ``validate`` and ``convert``, with underscores: ``measurement``, ``nphotons``, ``position_unit``,
        ``energy`` (eV), ``distance`` (m), ``detector_pixel`` (m), ``pixel_size`` (m), ``flip_y`` and others.

    Raises
    ------
    DataError
        If the scan is refused.
    ConfigError
        If a setting is unknown or out of bounds.
    """
    files = {key: value for key, value in (("positions", positions), ("probe", probe)) if isinstance(value, str)}
    chosen = settings_for("read", {**settings, **files})

    def change(raw: RawScan) -> RawScan:
        if positions is not None and not isinstance(positions, str):
            raw = set_positions(raw, _numbers(positions, "positions", np.dtype(np.float64)))
        if probe is not None and not isinstance(probe, str):
            modes = _numbers(probe, "probe", np.dtype(np.complex64))
            raw = use_probe(raw, modes[None] if modes.ndim == 2 else modes, "the caller")
        return raw if bad_pixels is None else mask_pixels(raw, np.asarray(bad_pixels) != 0, "the caller")

    arrays = any(value is not None and not isinstance(value, str) for value in (positions, probe, bad_pixels))
    if isinstance(source, ScanDataset):
        if arrays or scan_index is not None or object_guess is not None or settings or files:
            raise UsageError("A dataset has its positions, probe and domain.", "Give its patterns to read instead.")
        return scan_of(source)
    if _is_files(source):
        if scan_index is not None or object_guess is not None:
            raise UsageError("scan_index and object_guess go with patterns; a file has its own.", "Leave them out.")
        files_of = cast("StrPath | Sequence[StrPath]", source)
        return scan_of_checked(read_converted(files_of, chosen.reading, chosen.conversion, change if arrays else None))
    for what, there, how in (("positions", positions, "(n, 2) of y, x"), ("probe", probe, '"mean" makes one')):
        if there is None:
            raise UsageError(f"Patterns alone are no scan: {what} is missing.", f"Give {what}= ({how}).")
    raw = RawScan(
        patterns=_numbers(source, "patterns"),
        positions=None,
        measurement=chosen.reading.measurement,
        scan_index=None if scan_index is None else np.asarray(scan_index),
        object_guess=None if object_guess is None else np.asarray(object_guess, np.complex64),
        name=name,
    )
    raw = _with_mask(raw, source)
    raw = change(centre_patterns(raw) if chosen.reading.fftshift else raw)
    return scan_of_checked(convert_raw([raw], chosen.reading, chosen.conversion, name))


def scan_of_checked(data: ScanDataset) -> Scan:
    """A dataset that passed all checks as a scan."""
    return Scan(**{one.name: getattr(data, one.name) for one in fields(ScanDataset)})


def _with_mask(raw: RawScan, source: Any) -> RawScan:
    """The scan of some patterns, of which masked values are bad."""
    masked = np.ma.is_masked(source)
    return mask_pixels(raw, np.ma.getmaskarray(source), "the masked array") if masked else raw


def _is_files(source: object) -> bool:
    if isinstance(source, str | os.PathLike):
        return True
    return isinstance(source, list | tuple) and all(isinstance(one, str | os.PathLike) for one in source)


def _numbers(value: object, name: str, dtype: np.dtype[Any] | None = None) -> AnyArray:
    try:
        if dtype is not None and np.ma.is_masked(value):
            value = np.ma.filled(np.ma.asarray(value, dtype), np.nan)
        array = np.asarray(value, dtype)
    except (TypeError, ValueError) as error:
        raise DataError(f"The {name} are no array of numbers: {error}.", "Give a NumPy array.") from error
    if array.dtype.kind not in "biufc":
        raise DataError(
            f"The {name} are of the type {type(value).__name__}.", "Give a NumPy array of numbers, or a path."
        )
    return array


def simulate_scan(
    config: SimulationConfig | None = None,
    *,
    obj: ComplexArray | None = None,
    probe: ComplexArray | None = None,
    monitor: Monitor = NULL_MONITOR,
    **settings: object,
) -> Scan:
    """Simulate a scan, as `ptychopinn.simulate.simulate_scan` does, from a configuration or from its fields.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of bounds, or the scan does not fit into the object.
    """
    known = {} if config is None else config.model_dump(exclude_unset=True)
    return scan_of_checked(
        simulate_dataset(build(SimulationConfig, {**known, **settings}), obj=obj, probe=probe, monitor=monitor)
    )
