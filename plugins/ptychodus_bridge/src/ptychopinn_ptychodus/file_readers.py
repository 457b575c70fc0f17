"""Ptychodus's own readers of beamlines' files, as readers of ptychopinn.

Each reader of patterns that has no counterpart in the core is one reader here, to be named with ``--reader``. A file
that nobody else knows is tried with all of them: one that opens the file reads it, of several the user has to name one.

Ptychodus takes positions from a file of the user's choice. Here they come from the file itself, or from one beside it
with the same name and the suffix of the format's positions. Importing this module does not import Ptychodus.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.raw_scan import Geometry, RawScan
from ptychopinn.data.readers import ReaderSpec
from ptychopinn.errors import DataError
from ptychopinn.hookspecs import hookimpl
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray
from ptychopinn_ptychodus.file_guard import refuse_unsafe

_HDF5, _TIFF = (".h5", ".hdf5"), (".tif", ".tiff")
_ITSELF = ""
_MIN_SIDE = 16  # px, around the beam
_PTYCHODUS = "ptychodus"  # its logger


@dataclass(frozen=True)
class Format:
    """A reader of Ptychodus."""

    name: str  # of the reader here
    plugin: str  # the simple name of the plugin of Ptychodus that reads the patterns
    # As of a `ReaderSpec`.
    summary: str
    suffixes: tuple[str, ...]
    # Plugins of Ptychodus that read the positions, each with the suffix of its files; none is the file itself.
    positions: tuple[tuple[str, str], ...] = ()
    amplitudes: bool = False  # whether patterns that are no whole numbers are amplitudes


FORMATS: tuple[Format, ...] = (
    Format("ptychodus-2idd", "APS_2IDD", "APS 2-ID-D microprobe", _HDF5, (("APS_2IDD", ".mda"),)),
    Format("ptychodus-2ide", "APS_2IDE", "APS 2-ID-E microprobe", _HDF5, (("APS_2IDE", ".mda"),)),
    Format("ptychodus-bnp", "APS_BNP", "APS 2-ID-D bionanoprobe", _HDF5, (("APS_BNP", ".mda"),)),
    Format("ptychodus-polar", "APS_Polar", "APS 4-ID POLAR", (".hdf",), (("APS_Polar", _ITSELF),)),
    Format("ptychodus-cssi", "APS_CSSI", "APS 9-ID-D CSSI", _HDF5, (("APS_CSSI", _ITSELF),)),
    Format("ptychodus-12ide", "APS_PtychoSAXS", "APS 12-ID-E Ptycho-SAXS", _HDF5, (("APS_PtychoSAXS", ".dat"),)),
    Format(
        "ptychodus-12ide-tiff",
        "APS_PtychoSAXS_TIFF",
        "APS 12-ID-E Ptycho-SAXS, TIFF",
        _TIFF,
        (("APS_PtychoSAXS_TIFF", ".dat"),),
    ),
    Format(
        "ptychodus-12ide-processed",
        "APS_PtychoSAXS_Processed",
        "APS 12-ID-E Ptycho-SAXS, processed",
        _HDF5,
        (("APS_PtychoSAXS_Processed", _ITSELF),),
    ),
    Format("ptychodus-isn", "APS_ISN", "APS 19-ID-E in-situ nanoprobe", _HDF5, (("APS_ISN_MDA", ".mda"),)),
    Format("ptychodus-cnm", "CNM_APS_HXN", "CNM/APS 26-ID-C nanoprobe", _HDF5, (("CNM_APS_HXN", ".mda"),)),
    Format(
        "ptychodus-cnm-tiff", "CNM_APS_HXN_TIFF", "CNM/APS 26-ID-C nanoprobe, TIFF", _TIFF, (("CNM_APS_HXN", ".mda"),)
    ),
    Format("ptychodus-lamni", "APS_LamNI", "APS 31-ID-E LamNI", _HDF5, (("APS_LamNI", ".dat"),)),
    Format("ptychodus-velociprobe", "APS_Velociprobe", "APS 33-ID-C VelociProbe", _HDF5),
    Format("ptychodus-34ide", "APS_34IDE", "APS 34-ID-E microdiffraction", _TIFF, (("APS_34IDE", ".mda"),)),
    Format("ptychodus-xpp", "LCLS_XPP", "LCLS XPP", _HDF5, (("LCLS_XPP", _ITSELF),)),
    Format("ptychodus-nanomax", "MAX_IV_NanoMAX", "MAX IV NanoMAX", _HDF5, (("MAX_IV_NanoMAX", _ITSELF),)),
    Format("ptychodus-hxn-1", "NSLS_II_1", "NSLS-II 3-ID HXN, style 1", _HDF5, (("NSLS_II_1", _ITSELF),)),
    Format(
        "ptychodus-hxn-2", "NSLS_II_2", "NSLS-II 3-ID HXN, style 2", _HDF5, (("NSLS_II_2", _ITSELF),), amplitudes=True
    ),
    Format(
        "ptychodus-hxn-matlab",
        "NSLS_II_MATLAB",
        "NSLS-II 3-ID HXN, MATLAB",
        (".mat",),
        (("NSLS_II_MATLAB", _ITSELF),),
    ),
    Format("ptychodus-csaxs", "SLS_cSAXS", "SLS X12SA cSAXS", _HDF5),
    Format("ptychodus-npz", "NPZ", "patterns that Ptychodus saved as NPZ", (".npz",)),
    Format("ptychodus-tiff", "TIFF", "numbered TIFF files", _TIFF),
)


def fitting(path: Path) -> list[Format]:
    """The formats whose reader opens a file.

    Raises
    ------
    DataError
        If the file is not safe to open.
    """
    offered = [one for one in FORMATS if path.suffix.lower() in one.suffixes]
    if not offered or not path.is_file():
        return []
    refuse_unsafe(path)
    return [one for one in offered if _opens(one, path)]


def is_known(path: Path) -> bool:
    """Whether some reader of Ptychodus opens a file."""
    return bool(fitting(path))


def read_any(path: Path) -> RawScan:
    """A scan in the one format that opens the file.

    Raises
    ------
    DataError
        If several do, naming them.
    """
    found = fitting(path)
    if len(found) == 1:
        return read(found[0], path)
    if not found:
        raise DataError(f"No reader of Ptychodus opens {path}.", "Check the file.")
    listed = ", ".join(f"{one.name} ({one.summary})" for one in found)
    raise DataError(
        f"{path} may be of {len(found)} formats, whose positions and geometry differ: {listed}.",
        f"Say which: --reader {found[0].name} (reader= in Python).",
    )


def _opens(form: Format, path: Path) -> bool:
    """Whether the reader of a format opens a file; the patterns themselves are not read."""
    if form.plugin == "APS_PtychoSAXS_TIFF":  # it reads all images at once
        return re.fullmatch(r".+_\d+_\d+", path.stem) is not None
    try:
        with _silence():
            plugin = _plugin("diffraction_file_readers", form.plugin)
            return plugin is not None and sum(plugin.read(path).get_metadata().num_patterns_per_array) > 0
    except Exception:  # whatever a reader raises of a file that is not its own
        logging.getLogger(__name__).debug("%s does not open %s", form.plugin, path, exc_info=True)
        return False


def read(form: Format, path: Path) -> RawScan:
    """A scan in a format, with the positions that belong to the patterns.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    refuse_unsafe(path)
    with _collect_messages() as said:
        dataset = _run(path, form.plugin, _needed_plugin("diffraction_file_readers", form.plugin).read, path)
        indexes, patterns, bad, notes = _run(path, form.plugin, _patterns_of, dataset)
        numbers, metres, probe, source = _positions(form, path)
    geometry = dataset.get_metadata()
    pixel = geometry.detector_pixel_geometry
    energy = getattr(geometry, "photon_energy_eV", None) or getattr(geometry, "probe_energy_eV", None)  # of 1.6
    if source is not None:
        rows, positions = _match_positions(indexes, numbers, metres)
        notes.append(f"Positions of {source.name}, paired with the patterns by index.")
        if len(rows) < len(patterns):
            notes.append(f"{len(patterns) - len(rows)} of {len(patterns)} patterns have no position and are left out.")
            patterns = patterns[rows]
    return RawScan(
        patterns=patterns,
        positions=None if source is None else positions,
        unit="m",
        measurement=_measurement(form, patterns),
        probe=probe,
        bad_pixels=bad if bad.any() else None,
        geometry=Geometry(
            energy_eV=energy,
            distance_m=geometry.detector_distance_m,
            detector_pixel_m=None if pixel is None else (pixel.height_m, pixel.width_m),
        ),
        metadata=ScanMetadata(source="Ptychodus"),
        name=path.stem,
        notes=tuple(notes),
        warnings=tuple(dict.fromkeys(said)),
    )


def _measurement(form: Format, patterns: AnyArray) -> Measurement | None:
    """Whole numbers are counts; of others the format says what they are, or nobody does."""
    if patterns.dtype.kind in "ui":
        return Measurement.COUNTS
    return Measurement.AMPLITUDE if form.amplitudes else None


def _patterns_of(dataset: Any) -> tuple[IntArray, AnyArray, AnyArray, list[str]]:
    """(n,) indexes, (n, H, W) patterns with DC in the middle as far as is known, bad pixels, and notes."""
    from ptychodus.api.diffraction import CropRegion

    metadata, centre = dataset.get_metadata(), dataset.get_metadata().beam_center
    shape = (metadata.detector_extent.height_px, metadata.detector_extent.width_px)
    note = "The file does not say where the beam hits the detector; the middle of the patterns is taken."
    region = CropRegion(x_range=(0, shape[1]), y_range=(0, shape[0]))
    if centre is not None:
        half = min(centre.y_px, shape[0] - centre.y_px, centre.x_px, shape[1] - centre.x_px)
        if half < _MIN_SIDE // 2:
            raise DataError(
                f"The file says that the beam hits the detector of {shape[0]} x {shape[1]} pixels at row {centre.y_px} "
                f"and column {centre.x_px}, too near to its edge.",
                "Correct the centre of the beam in the file.",
            )
        region = CropRegion(
            x_range=(centre.x_px - half, centre.x_px + half), y_range=(centre.y_px - half, centre.y_px + half)
        )
        note = (
            f"The {2 * half} x {2 * half} pixels around the beam, row {centre.y_px} and column {centre.x_px} of "
            f"{shape[0]} x {shape[1]}, are taken."
        )
    indexes, blocks = [], []
    for array in dataset:
        blocks.append(np.asarray(array.get_patterns(read_region=region)))
        indexes.append(np.asarray(array.get_indexes()))
        if blocks[-1].ndim != 3 or len(blocks[-1]) != len(indexes[-1]):
            raise ValueError(
                f"{array.get_label()} has patterns of shape {blocks[-1].shape}, {len(indexes[-1])} indexes"
            )
    return np.concatenate(indexes), np.concatenate(blocks), region.apply_to(dataset.get_bad_pixels()), [note]


def _positions(form: Format, path: Path) -> tuple[IntArray, FloatArray, ComplexArray | None, Path | None]:
    """Indexes, (m, 2) positions (y, x) in metres and the probe, if it is there, of a file of positions; and the file.

    Raises
    ------
    DataError
        If several files may have them, or the one that has them cannot be read.
    """
    none = np.empty(0, np.int64), np.empty((0, 2)), None, None
    found = {file: plugin for plugin, suffix in form.positions for file in _files_of(path, suffix)}
    if not found:
        return none
    if len(found) > 1:
        names = ", ".join(sorted(file.name for file in found))
        raise DataError(f"{path} may have its positions in each of {names}.", "Leave only the right one beside it.")
    ((file, plugin),) = found.items()
    refuse_unsafe(file)
    sequence = _run(file, plugin, _needed_plugin("probe_position_file_readers", plugin).read, file)
    if not len(sequence):
        return none
    probe = None if (reader := _plugin("probe_file_readers", plugin)) is None else _run(file, plugin, reader.read, file)
    numbers = np.array([point.index for point in sequence])
    metres = np.array([(point.y_m, point.x_m) for point in sequence])
    return numbers, metres, None if probe is None else np.asarray(probe.get_array()[0], np.complex64), file


def _files_of(path: Path, suffix: str) -> list[Path]:
    """The file itself, or those beside it with its name, or its name without the number of a frame."""
    if suffix == _ITSELF:
        return [path]
    stems = dict.fromkeys((path.stem, re.sub(r"[_-]?(\d+|master)$", "", path.stem)))
    return [file for stem in stems if stem and (file := path.with_name(stem + suffix)).is_file()]


def _match_positions(indexes: IntArray, numbers: IntArray, metres: FloatArray) -> tuple[IntArray, FloatArray]:
    """Rows of the patterns that have a position, and (n, 2) positions: the mean where an index has several.

    Raises
    ------
    DataError
        If none has one.
    """
    unique, inverse = np.unique(numbers, return_inverse=True)
    sums = np.stack([np.bincount(inverse, weights=axis) for axis in metres.T], axis=-1)
    means = sums / np.bincount(inverse)[:, None]
    at = np.searchsorted(unique, indexes).clip(0, len(unique) - 1)
    rows = np.flatnonzero(unique[at] == indexes)
    if not len(rows):
        raise DataError(
            f"No position has the index of a pattern: patterns {indexes.min()} to {indexes.max()}, positions "
            f"{numbers.min()} to {numbers.max()}.",
            "Take the positions of this scan.",
        )
    return rows, means[at[rows]]


def _plugin(kind: str, name: str) -> Any | None:
    """A plugin of Ptychodus by its simple name; None if this release has none."""
    from ptychodus.api.plugins import PluginRegistry

    with _silence(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its modules may warn where they are imported
        chooser = getattr(PluginRegistry.load_plugins(), kind)
    return next((plugin.strategy for plugin in chooser if plugin.simple_name == name), None)


def _needed_plugin(kind: str, name: str) -> Any:
    if (plugin := _plugin(kind, name)) is None:
        raise DataError(f"This release of Ptychodus has no reader {name}.", "Install Ptychodus 1.7 or newer.")
    return plugin


def _run(path: Path, plugin: str, step: Any, argument: Any) -> Any:
    """Do a step of Ptychodus; whatever it raises becomes an error of ours."""
    try:
        return step(argument)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # its readers raise what h5py, NumPy, tifffile and csv raise
        raise DataError(
            f"Ptychodus's reader {plugin} cannot read {path}: {type(error).__name__}: {error!s:.500}.",
            "Name another reader with --reader, or copy the file again.",
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Without the log lines of Ptychodus."""
    logger = logging.getLogger(_PTYCHODUS)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _collect_messages() -> Iterator[list[str]]:
    """The warnings that Ptychodus's readers log, instead of their lines in the log."""
    logger = logging.getLogger(_PTYCHODUS)
    said: list[str] = []
    propagate = logger.propagate
    handler = _Collector(said)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    """Writes warnings into a list."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(f"Ptychodus: {record.getMessage():.500}")


def _know_nothing(path: Path) -> bool:
    """No file by itself: several of these formats look alike, and ``ptychodus-files`` asks which it is."""
    return False


READERS: tuple[ReaderSpec, ...] = (
    ReaderSpec(
        "ptychodus-files",
        "a beamline's file, by the one reader of Ptychodus that opens it",
        tuple(dict.fromkeys(suffix for one in FORMATS for suffix in one.suffixes)),
        is_known,
        read_any,
    ),
    *(
        ReaderSpec(one.name, f"{one.summary} (by name only)", one.suffixes, _know_nothing, partial(read, one))
        for one in FORMATS
    ),
)


@hookimpl
def ptychopinn_readers() -> tuple[ReaderSpec, ...]:
    """The readers of this distribution."""
    return READERS
