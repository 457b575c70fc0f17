"""Open a scan file of any format: find its reader, bring patterns to a size that networks take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ptychopinn.config.model import SUPPORTED_N
from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.contract import PATTERN_KEYS, interpret
from ptychopinn.data.dataset import ScanMetadata
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.hdf5 import is_hdf5, open_hdf5
from ptychopinn.data.probe_recipes import is_recipe, make_probe, use_probe
from ptychopinn.data.raw_scan import Geometry, RawScan, as_scan_file, to_pixels
from ptychopinn.data.readers.find import CORE_READERS, plugin_readers, read_named, read_with
from ptychopinn.data.readers.hdf5_values import find_probe
from ptychopinn.data.readers.zarr_store import is_store
from ptychopinn.data.scan_file import ScanFile, open_npz
from ptychopinn.data.scan_reader import Reader
from ptychopinn.data.scan_steps import centre_patterns
from ptychopinn.data.sizes import fit_size
from ptychopinn.errors import DataError, ResourceError
from ptychopinn.path_checks import why_unreadable
from ptychopinn.typing import AnyArray, BoolArray, StrPath

_ZIP = b"PK"
_PROBE_KEYS = ("probeGuess", "probe")


def open_scan(path: StrPath, options: ReadOptions | None = None) -> ScanFile:
    """The arrays of a scan file under the names of the contract, with patterns of a supported size.

    Files of the contract, NPZ or HDF5, are listed without reading values, if their patterns have a supported size.
    Others are read by the readers of the core, then of plugins.

    Raises
    ------
    DataError
        If no reader knows it, or the one that does refuses it.
    ResourceError
        If it does not fit into memory.
    """
    path, options = Path(path), options or ReadOptions()
    try:
        raw = read_foreign(path, options.reader)
        if raw is not None:
            return usable(raw, path, options)
        file = open_arrays(path)
        if options.probe is not None:
            raw = raw_scan_of(file, options)
            return file if raw is None else replace(usable(raw, path, options), contents=file.contents)
        return _fitted(file, options) or file
    except MemoryError as error:
        raise ResourceError(
            f"{path} does not fit into memory: {error}.", "Use a machine with more memory, or a part of the scan."
        ) from error


def usable(raw: RawScan, path: Path, options: ReadOptions) -> ScanFile:
    """The arrays under the names of the contract: with the probe that is asked for, of a supported size, in pixels.

    Raises
    ------
    DataError
        If the scan has no positions or no probe.
    """
    if raw.positions is None:
        raise DataError(
            " ".join([f"{path} has no positions.", *raw.notes]),
            "Give one to each pattern, in their order: ptychopinn convert SCAN -o NEW.npz --positions FILE (two "
            "columns y x of text, or an NPY, NPZ or HDF5 file). Lengths need --position-unit and --pixel-size too. "
            "Or name a reader that finds them, of those of `ptychopinn plugins`: --reader NAME.",
        )
    try:
        _refuse_corner(raw, options)
        if options.probe is not None:
            raw = with_probe(raw, options.probe)
        if raw.probe is None:
            raise DataError(
                "The scan has no probe.",
                "Let one be made: --probe mean, or --probe zone-plate:diameter=,outer_width=,defocus= (see --help), "
                "or name a file that has one: --probe FILE (probe= in Python).",
            )
        return as_scan_file(to_pixels(fit_size(raw)), path)
    except DataError as error:
        raise DataError(f"{path}: {error.problem}", error.remedy) from error


def with_probe(raw: RawScan, text: str) -> RawScan:
    """A scan with the probe that a recipe or a file gives (`ptychopinn.data.probe_recipes`).

    Raises
    ------
    ConfigError, DataError
        If there is none.
    """
    if is_recipe(text):
        return make_probe(raw, text)
    found = find_probe(load_array(text, _PROBE_KEYS))
    assert found.probe is not None
    changed = use_probe(raw, found.probe, Path(text).name)
    return changed.with_changes(warnings=(*changed.warnings, *found.warnings))


def load_array(path: str, keys: tuple[str, ...], pair: tuple[str, str] | None = None) -> AnyArray:
    """An array of numbers out of an NPY, NPZ or HDF5 file.

    Parameters
    ----------
    keys:
        Its names; the first that is there.
    pair:
        Names of two arrays that become the columns of one, if there is none of ``keys``.

    Raises
    ------
    DataError
        If there is none; the error lists what is there.
    """
    if Path(path).suffix.lower() == ".npy":
        return _load_npy(path)
    file = open_arrays(path)
    reader = Reader(file, Findings())
    wanted = next((key for key in keys if reader.has(key)), None)
    names = [wanted] if wanted is not None else [*(pair or ())]
    arrays = [reader.load(name, kinds="biufc", what="numbers") for name in names]
    if not arrays or any(array is None for array in arrays):
        reason = f" ({reader.findings.errors[0].message})" if reader.findings.errors else ""
        raise DataError(f"{path} has no {' or '.join(keys)}{reason}; it has {file.listed}.", "Name a file with one.")
    found = [np.asarray(array) for array in arrays]
    if len({array.shape for array in found}) > 1:
        raise DataError(f"{path}: {' and '.join(names)} have different shapes.", "Give every pattern its position.")
    return found[0] if wanted is not None else np.stack(found, axis=-1)


def _load_npy(path: str) -> AnyArray:
    if (why := why_unreadable(path)) is not None:
        raise DataError(f"{path} {why}.", "Check the name and the folder.")
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read as an array: {error!s:.300}.", "Save it with numpy.save.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
        raise DataError(f"{path} holds no array of numbers.", "Save it with numpy.save.")
    return array


def read_raw(path: StrPath, options: ReadOptions) -> RawScan:
    """A scan before it is checked, of any format, with DC in the centre.

    Raises
    ------
    DataError
        If arrays are missing or do not belong together.
    """
    path = Path(path)
    raw = read_foreign(path, options.reader)
    if raw is None:
        file = open_arrays(path)
        try:
            raw = raw_scan_of(file, options)
        except DataError as error:
            raise DataError(f"{path}: {error.problem}", error.remedy) from error
        if raw is None:
            findings = Findings()
            interpret(file, options, findings)
            findings.raise_first(path)
            raise DataError(f"{path} has no patterns (n, H, W); it has {file.listed}.", "Name the file of a scan.")
    return centre_patterns(raw) if options.fftshift else raw


def open_arrays(path: StrPath) -> ScanFile:
    """The arrays of an NPZ or HDF5 file as they are named there."""
    return open_hdf5(path, PATTERN_KEYS) if is_hdf5(path) else open_npz(path)


def read_foreign(path: Path, reader: str | None = None) -> RawScan | None:
    """A scan of another format than the contract's; None if it is of the contract, or no reader knows it.

    Parameters
    ----------
    reader:
        The reader that reads it, whatever it is.

    Raises
    ------
    DataError
        From the reader.
    ConfigError
        If there is no such reader.
    """
    if reader is not None:
        return read_named(reader, path)
    if is_hdf5(path) and path.suffix.lower() != ".mat":
        file = open_hdf5(path, PATTERN_KEYS)
        if any(key in file.members or key in file.broken for key in PATTERN_KEYS):
            return None
    elif not is_store(path) and _is_zip(path) and not _is_other_npz(path):
        return None
    raw = read_with(CORE_READERS, path)
    return read_with(plugin_readers(), path) if raw is None else raw


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(2) == _ZIP
    except OSError:
        return True  # open_npz says what is wrong with it


def _is_other_npz(path: Path) -> bool:
    """Whether it is an NPZ file that lists no patterns of the contract."""
    try:
        file = open_npz(path)
    except DataError:
        return False  # reading it as a file of the contract says what is wrong with it
    return not any(key in file.members or key in file.broken for key in PATTERN_KEYS)


def raw_scan_of(file: ScanFile, options: ReadOptions) -> RawScan | None:
    """The scan of a file of the contract, before it is checked; None if an array is refused (checking says why).

    Raises
    ------
    DataError
        If arrays do not belong together.
    """
    reader = Reader(file, Findings())
    metadata = reader.metadata()
    key = next((key for key in PATTERN_KEYS if reader.has(key)), PATTERN_KEYS[0])
    patterns = reader.load(key, kinds="iuf", what="a real array (n, N, N)")
    if metadata is None or patterns is None or patterns.ndim != 3 or not patterns.size:
        return None
    x, y = (reader.load(name, kinds="iuf", what="(n,) numbers") for name in ("xcoords", "ycoords"))
    if x is not None and len(patterns) != len(x) == patterns.shape[2] and patterns.shape[0] == patterns.shape[1]:
        patterns = np.ascontiguousarray(np.moveaxis(patterns, 2, 0))
    probe = reader.load("probeGuess", kinds="fc", what="a complex array")
    mask = reader.load("bad_pixels", kinds="biuf", what="a mask")
    bad = reader.bad_values(len(patterns), (int(patterns.shape[1]), int(patterns.shape[2])))
    index = reader.load("scan_index", kinds="iuf", what="(n,) integers")
    raw = RawScan(
        patterns=patterns,
        positions=None if x is None or y is None or x.shape != y.shape else np.stack([y, x], axis=-1).astype(float),
        measurement=options.measurement or metadata.measurement,
        legacy_key=key == "diff3d",
        probe=None if probe is None else _modes_first(probe, patterns.shape[1:]),
        probe_variation=reader.probe_variation(len(patterns)),
        object_guess=reader.object_guess(),
        patches=reader.load("Y", kinds="fc", what="a complex array"),
        scan_index=index,
        bad_pixels=_united(mask, bad.pixels),
        bad_values=bad.values,
        geometry=_stated_geometry(metadata),
        metadata=metadata,
        name=file.path.stem,
        notes=file.notes,
        warnings=file.warnings,
    )
    return None if reader.findings.errors else raw


def _united(mask: AnyArray | None, bad: BoolArray) -> BoolArray | None:
    """Bad pixels of a mask (H, W) and others; None if there is neither."""
    if mask is None or mask.shape != bad.shape:
        return bad if mask is None and bad.any() else mask
    return mask.astype(bool) | bad


def _stated_geometry(metadata: ScanMetadata) -> Geometry:
    pixel = metadata.pixel_size_m
    return Geometry(
        energy_eV=metadata.probe_energy_eV,
        distance_m=metadata.detector_distance_m,
        object_pixel_m=None if pixel is None else (pixel, pixel),
    )


def _modes_first(probe: np.ndarray, size: tuple[int, ...]) -> np.ndarray | None:
    while probe.ndim > 3 and probe.shape[0] == 1:
        probe = probe[0]
    probe = probe[None] if probe.ndim == 2 else probe
    if probe.ndim == 3 and probe.shape[1:] != size and probe.shape[:2] == size:
        probe = np.moveaxis(probe, 2, 0)
    return probe if probe.ndim == 3 else None


def _fitted(file: ScanFile, options: ReadOptions) -> ScanFile | None:
    """The file with patterns of a supported size; None if they have one, or the file is refused anyway."""
    key = next((key for key in PATTERN_KEYS if key in file.members), None)
    shape = () if key is None else file.members[key].shape
    if len(shape) != 3 or 0 in shape or _supported(shape[1:]) or _supported(shape[:2]):
        return None
    try:
        raw = raw_scan_of(file, options)
    except DataError:
        return None  # interpreting the file as it is names the array
    if raw is None:
        return None
    _refuse_corner(raw, options)
    return replace(as_scan_file(fit_size(raw), file.path), contents=file.contents)


def _refuse_corner(raw: RawScan, options: ReadOptions) -> None:
    """Refuse to crop or pad around a centre that is in the corner.

    Raises
    ------
    DataError
        If the caller says that DC is in the corner, and the size is not supported.
    """
    if options.fftshift and not _supported(raw.size):
        raise DataError(
            f"The patterns are {raw.size[0]} x {raw.size[1]} with DC in the corner; patterns are cropped or padded "
            "around their centre.",
            "Move DC first: ptychopinn convert --fftshift.",
        )


def _supported(size: tuple[int, ...]) -> bool:
    return size[0] == size[1] and size[0] in SUPPORTED_N
