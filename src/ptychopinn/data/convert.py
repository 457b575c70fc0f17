"""Convert scan files to the canonical format, with the steps that mend a scan on the way."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.config.reading import ReadOptions
from ptychopinn.data import scan_selection, scan_steps
from ptychopinn.data.contract import interpret
from ptychopinn.data.cxi_writer import write_cxi_scan
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.data.open_scan import load_array, read_raw, usable
from ptychopinn.data.raw_scan import Geometry, RawScan
from ptychopinn.data.sizes import bin_patterns, resize_patterns
from ptychopinn.errors import ConfigError, DataError, UsageError
from ptychopinn.path_checks import why_unreadable
from ptychopinn.typing import FloatArray, IntArray, StrPath

_LOG = logging.getLogger(__name__)
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_MAX_FRAMES = 100_000_000


def convert_scan(
    source: StrPath | Sequence[StrPath],
    target: StrPath,
    reading: ReadOptions | None = None,
    conversion: ConversionOptions | None = None,
    *,
    compress: bool = False,
    overwrite: bool = False,
) -> ScanDataset:
    """Read scan files and write one in the canonical format.

    Parameters
    ----------
    source:
        As in `ptychopinn.data.io.read_scan`; several scans of one object are joined.
    target:
        The file to write, NPZ, or CXI if it ends with .cxi; may be ``source`` itself with ``overwrite``.
    conversion:
        What to change; the scan is checked afterwards.
    compress:
        As in `ptychopinn.data.io.write_scan`.

    Raises
    ------
    UsageError
        If ``target`` exists and ``overwrite`` is false, or its folder does not exist.
    DataError
        If ``source`` is refused; ``target`` is then unchanged.
    ConfigError
        If a step cannot be done.
    ResourceError
        If it could not be written.
    """
    if Path(target).exists() and not overwrite:
        raise UsageError(f"{target} exists already.", "Give another name, or replace it with --overwrite.")
    data = read_converted(source, reading, conversion)
    if Path(target).suffix.lower() != ".cxi":
        write_scan(target, data, compress=compress)
        return data
    if data.metadata.pixel_size_m is None:
        _LOG.warning(
            "%s has no positions in metres, which other programs need: the size of an object pixel is not known. "
            "Give --pixel-size, or --energy, --distance and --detector-pixel.",
            target,
        )
    write_cxi_scan(target, data, compress=compress)
    return data


def read_converted(
    source: StrPath | Sequence[StrPath],
    reading: ReadOptions | None = None,
    conversion: ConversionOptions | None = None,
    change: Callable[[RawScan], RawScan] | None = None,
) -> ScanDataset:
    """Read scan files as `convert_scan` does, without writing one. ``change`` is done to each before all else.

    Raises
    ------
    DataError, ConfigError
        If it is refused, or a step cannot be done.
    """
    sources = [source] if isinstance(source, str | PathLike) else list(source)
    reading, conversion = reading or ReadOptions(), conversion or ConversionOptions()
    if not sources:
        raise UsageError("No scan file is named.", "Name at least one.")
    if len(sources) == 1 and conversion == ConversionOptions() and change is None:
        return read_scan(sources[0], **dict(reading))
    scans = [read_raw(path, reading) for path in sources]
    return convert_raw([scan if change is None else change(scan) for scan in scans], reading, conversion, sources[0])


def convert_raw(
    scans: Sequence[RawScan], reading: ReadOptions, conversion: ConversionOptions, path: StrPath = "arrays"
) -> ScanDataset:
    """Do the steps of a conversion to scans, join them, and check the result as a file is checked; it is logged.

    ``path`` names them in errors.

    Raises
    ------
    DataError, ConfigError
        If it is refused, or a step cannot be done.
    """
    return _check_scan(_join_scans(scans, conversion), Path(path), reading)


def _join_scans(scans: Sequence[RawScan], conversion: ConversionOptions) -> RawScan:
    scans = [scan_steps.in_photons(scan_steps.mark_gaps(scan)) for scan in scans]
    raw = scan_selection.join_scans([apply_steps(scan, conversion) for scan in scans])
    if conversion.bin > 1:
        raw = bin_patterns(raw, conversion.bin)
    return scan_steps.with_dose(raw if conversion.resize is None else resize_patterns(raw, conversion.resize))


def _check_scan(raw: RawScan, path: Path, reading: ReadOptions) -> ScanDataset:
    """The scan after all checks of a file; what was done is logged."""
    findings = Findings()
    options = reading.model_copy(update={"fftshift": False})  # done before
    found = interpret(usable(raw, path, options), options, findings)
    findings.raise_first(path)
    assert found is not None
    findings.log(_LOG, path)
    return found.data


def apply_steps(raw: RawScan, options: ConversionOptions) -> RawScan:
    """Do all steps but joining, binning and resizing, in the order of the options' fields.

    Raises
    ------
    DataError, ConfigError
        If a step cannot be done.
    """
    return _select(_repair(_orient(_place(raw, options), options), options), options)


def _place(raw: RawScan, options: ConversionOptions) -> RawScan:
    """Positions and geometry."""
    if options.positions is not None:
        raw = scan_steps.set_positions(raw, read_positions(options.positions))
    if options.position_unit is not None:
        raw = scan_steps.positions_in(raw, options.position_unit)
    if options.swap_axes:
        raw = scan_steps.swap_axes(raw)
    for axis, asked in (("y", options.negate_y), ("x", options.negate_x)):
        if asked:
            raw = scan_steps.negate_positions(raw, axis)  # type: ignore[arg-type]
    if options.scale_positions is not None:
        raw = scan_steps.scale_positions(raw, _pair(options.scale_positions, "scale_positions"))
    if options.offset_positions is not None:
        raw = scan_steps.offset_positions(raw, options.offset_positions)
    if options.roll_positions:
        raw = scan_steps.roll_positions(raw, options.roll_positions)
    pixel, detector = options.pixel_size, options.detector_pixel
    if pixel is not None and raw.size[0] != raw.size[1]:
        raise DataError(
            f"Patterns of {raw.size[0]} x {raw.size[1]} have object pixels of two sizes, one in each axis.",
            "Give --energy, --distance and --detector-pixel in place of --pixel-size.",
        )
    given = Geometry(
        energy_eV=options.energy,
        distance_m=options.distance,
        detector_pixel_m=None if detector is None else (detector, detector),
        object_pixel_m=None if pixel is None else (pixel, pixel),
    )
    return scan_steps.set_geometry(raw, given)


def _pair(values: tuple[float, ...], name: str) -> tuple[float, float]:
    if len(values) not in (1, 2):
        raise ConfigError(f"{name} has {len(values)} values.", "Give one, or one for y and one for x.")
    return values[0], values[-1]


def _orient(raw: RawScan, options: ConversionOptions) -> RawScan:
    """Orientation of the patterns and of the probe."""
    probe = {"probe": raw.probe, "probe_variation": raw.probe_variation}
    if options.transpose:
        raw = scan_steps.transpose_patterns(raw)
    if options.flip_y:
        raw = scan_steps.flip_patterns(raw, "y")
    if options.flip_x:
        raw = scan_steps.flip_patterns(raw, "x")
    raw = scan_steps.rotate_patterns(raw, options.rotate)
    if not options.turn_probe and raw.probe is not None:
        raw = raw.with_changes("The probe is left as it was.", **probe)
    if options.shift is not None:
        raw = scan_steps.shift_patterns(raw, options.shift)
    if options.conjugate_probe:
        raw = scan_steps.conjugate_probe(raw)
    return scan_steps.centre_probe(raw) if options.probe_from_corner else raw


def _repair(raw: RawScan, options: ConversionOptions) -> RawScan:
    """Bad pixels and background."""
    if options.mask is not None:
        mask = load_array(options.mask, ("bad_pixels", "mask"))
        raw = scan_steps.mask_pixels(raw, mask != 0, options.mask)
    if options.mask_above is not None:
        raw = scan_steps.mask_above(raw, options.mask_above)
    if options.background is not None:
        raw = scan_steps.subtract_background(raw, read_background(options.background))
    return raw


def _select(raw: RawScan, options: ConversionOptions) -> RawScan:
    """Some of the patterns."""
    if options.frames is not None:
        raw = scan_selection.take_patterns(raw, parse_frames(options.frames), "Patterns of the list")
    if options.region is not None:
        raw = scan_selection.take_region(raw, options.region)
    if options.stride > 1:
        raw = scan_selection.take_patterns(
            raw, np.arange(0, len(raw.patterns), options.stride), "Every so manieth pattern"
        )
    return scan_selection.drop_outliers(raw) if options.drop_outliers else raw


def read_background(text: str) -> float | FloatArray:
    """A number, or the array of a file (keys background, dark or data).

    Raises
    ------
    DataError
        If it is neither.
    """
    try:
        number = float(text)
    except ValueError:
        return load_array(text, ("background", "dark", "data"))
    if not math.isfinite(number):
        raise DataError(f"The background is {text}.", "Give counts a pixel.")
    return number


def read_positions(path: str) -> FloatArray:
    """(n, 2) (y, x) of a file: two columns of text, an array, or the keys ycoords and xcoords or positions.

    Raises
    ------
    DataError
        If it has none, or its first column counts the rows.
    """
    if Path(path).suffix.lower() in (".txt", ".csv", ".dat", ".tsv"):
        found = _table(path)
    else:
        found = load_array(path, ("positions", "position"), pair=("ycoords", "xcoords"))
    if found.ndim != 2 or found.shape[1] < 2 or found.dtype.kind not in "iuf":
        raise DataError(f"{path} has an array of shape {found.shape}.", "Give two columns, y and x, a row a pattern.")
    if found.shape[1] > 2:
        if len(found) > 2 and np.array_equal(found[:, 0] - found[0, 0], np.arange(len(found))):
            raise DataError(f"The first column of {path} counts the rows.", "Give two columns, y and x.")
        _LOG.warning("%s has %d columns: the first two are taken as y and x.", path, found.shape[1])
    return found[:, :2].astype(np.float64)


def _table(path: str) -> FloatArray:
    """Numbers of a text file; commas and white space separate, lines that do not begin with a number are left out."""
    lines = [_leading_numbers(line) for line in load_text(path).splitlines()]
    rows = [numbers for numbers in lines if numbers]
    width = min(map(len, rows), default=0)
    if width < 2:
        raise DataError(f"{path} has no two columns of numbers.", "Give y and x, a row a pattern.")
    return np.array([numbers[:width] for numbers in rows])


def _leading_numbers(line: str) -> list[float]:
    numbers = []
    for word in line.replace(",", " ").replace(";", " ").split():
        try:
            numbers.append(float(word))
        except ValueError:
            break
    return numbers


def load_text(path: str) -> str:
    """The text of a file of at most 256 MiB.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    if (why := why_unreadable(path)) is not None:
        raise DataError(f"{path} {why}.", "Check the name and the folder.")
    with Path(path).open("rb") as stream:
        return stream.read(1 << 28).decode("utf-8", "replace")


def parse_frames(text: str) -> IntArray:
    """Numbers of patterns out of ``0-99,120``, or of a text file of them.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    if not _RANGE.match(text) and Path(text).is_file():
        text = ",".join(load_text(text).split())
    numbers: list[IntArray] = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        match = _RANGE.fullmatch(part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if high < low or high - low > _MAX_FRAMES:
            raise ConfigError(f"'{part[:50]}' is no pattern or range of patterns.", "Give such as 0-99,120.")
        numbers.append(np.arange(low, high + 1))
    if not numbers:
        raise ConfigError("No pattern is named.", "Give such as 0-99,120.")
    return np.concatenate(numbers)
