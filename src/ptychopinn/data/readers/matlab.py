"""MATLAB files, version 5 and 7.3, and the pair of HDF5 files of fold_slice and PtychoShelves.

MATLAB's arrays have the pattern's number last: (H, W, n), and (H, W, modes) for probes. In version 7.3 (HDF5) all axes
are reversed. Names are those of the contract and those that fold_slice, PtychoShelves and PtychoNN use.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.hdf5 import is_hdf5
from ptychopinn.data.hdf5_tree import Hdf5Tree
from ptychopinn.data.raw_scan import EV_METRES, Geometry, RawScan
from ptychopinn.data.readers import hdf5_values as values
from ptychopinn.data.readers.cxi import several_slices
from ptychopinn.data.readers.ptychodus import sniff_training_pair
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.errors import DataError
from ptychopinn.path_checks import why_unreadable
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray

_MAGIC_5, _MAGIC_73 = b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"
_PATTERNS = ("dp", "diff3d", "diffraction", "fmag", "patterns", "I")
_AMPLITUDES = ("diffraction", "fmag")
_PROBES = ("probe", "probeGuess", "probe_initial", "probes", "probe0")
_POSITIONS_M = (("ppY", "ppX"), ("pos_y", "pos_x"))
_POSITIONS_PX = (("ycoords", "xcoords"),)
_OBJECTS = ("object", "objectGuess")
_MAX_BYTES = 1 << 33
_MAX_VARIABLES = 200
_DAMAGE = (
    MatReadError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OSError,
    NotImplementedError,
    zlib.error,
)


def sniff(path: Path) -> bool:
    """Whether it is a MATLAB file."""
    return _version(path) is not None


def _version(path: Path) -> bytes | None:
    if why_unreadable(path) is not None:
        return None
    with path.open("rb") as stream:
        start = stream.read(19)
    if start == _MAGIC_5:
        return _MAGIC_5
    if is_hdf5(path) and (start == _MAGIC_73 or path.suffix.lower() == ".mat"):
        return _MAGIC_73
    return None


def read(path: Path) -> RawScan:
    """A MATLAB file with patterns."""
    found = _load_5(path) if _version(path) == _MAGIC_5 else _load_73(path)
    return _scan(found, path)


def _load_5(path: Path) -> dict[str, AnyArray]:
    """Numeric variables of version 5, unpacked by SciPy; their claimed sizes are looked at first.

    Raises
    ------
    DataError
        If the file is damaged or has none of the names.
    """
    try:
        listed = scipy.io.whosmat(path)
        if len(listed) > _MAX_VARIABLES or len({name for name, _, _ in listed}) != len(listed):
            raise DataError(f"{path} has {len(listed)} variables, or two of one name.", "Save only those of the scan.")
        numeric = [(name, shape) for name, shape, kind in listed if kind in _NUMERIC]
        total = sum(8 * int(np.prod([float(n) for n in shape])) for _, shape in numeric)
        if total > max(_MAX_BYTES, 300 * path.stat().st_size):
            raise DataError(f"{path} claims to unpack to {total} bytes; it is not unpacked.", "Save it as version 7.3.")
        loaded: Mapping[str, Any] = scipy.io.loadmat(path, variable_names=[name for name, _ in numeric])
    except (*_DAMAGE, struct.error, OverflowError) as error:
        raise DataError(f"{path} is a MATLAB file that cannot be read: {error!s:.500}.", "Save it again.") from error
    return {name: np.asarray(value) for name, value in loaded.items() if np.asarray(value).dtype.kind in "biufc"}


_NUMERIC = ("double", "single", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "logical")


def _load_73(path: Path) -> dict[str, AnyArray]:
    """Numeric variables of version 7.3 with MATLAB's order of axes."""
    wanted = {*_PATTERNS, *_PROBES, *_OBJECTS, *_NUMBERS, *_MASKS}
    wanted |= {name for names in (*_POSITIONS_M, *_POSITIONS_PX) for name in names}
    with Hdf5Tree(path) as tree:
        found = {name: values.array(tree, name) for name in sorted(wanted)}
        listing = tree.listing()
    arrays = {name: np.transpose(value) for name, value in found.items() if value is not None}
    if not any(name in arrays for name in _PATTERNS):
        raise DataError(
            f"{path} has no patterns ({', '.join(_PATTERNS)}); it has {listing}.", "Save them under one of these names."
        )
    return arrays


_MASKS = ("mask", "bad_pixels")
_NUMBERS = ("lambda", "dx", "energy", "z", "det_pixel_size")


def _scan(found: dict[str, AnyArray], path: Path) -> RawScan:
    key = next((name for name in _PATTERNS if name in found and found[name].ndim == 3), None)
    if key is None:
        listing = ", ".join(f"{name[:40]} {value.shape}" for name, value in list(found.items())[:30]) or "no arrays"
        raise DataError(
            f"{path} has no patterns ({', '.join(_PATTERNS)}) of three axes; it has {listing}.",
            "Save them under one of these names, (H, W, n).",
        )
    positions, unit = _positions(found)
    patterns, moved = _numbered_first(found[key], None if positions is None else len(positions))
    measurement = None
    if key == "fmag":
        measurement = Measurement.AMPLITUDE
    elif key not in ("diff3d", "diffraction"):
        measurement = Measurement.COUNTS
    probe = next((found[name] for name in _PROBES if name in found), None)
    raw = RawScan(
        patterns=patterns,
        positions=positions,
        unit="m" if unit == "m" else "px",
        measurement=measurement,
        legacy_key=key not in _AMPLITUDES,
        object_guess=_object(next((found[name] for name in _OBJECTS if name in found), None)),
        bad_pixels=_bad(found, patterns.shape[1:]),
        geometry=_geometry(found),
        metadata=ScanMetadata(source="MATLAB"),
        name=path.stem,
        notes=(f"The shape {found[key].shape} of {key} is read as (H, W, n).",) if moved else (),
    )
    return raw if probe is None else _probe(probe, raw.size).of(raw)


def _numbered_first(patterns: AnyArray, n: int | None) -> tuple[AnyArray, bool]:
    """(n, H, W) patterns of (H, W, n) ones, and whether they were moved; the number of positions decides."""
    first, last = patterns.shape[0], patterns.shape[2]
    if n is None or (n == last and n != first):
        return np.ascontiguousarray(np.moveaxis(patterns, 2, 0)), True
    return np.ascontiguousarray(patterns), False


def _positions(found: dict[str, AnyArray]) -> tuple[FloatArray | None, str]:
    for unit, pairs in (("m", _POSITIONS_M), ("px", _POSITIONS_PX)):
        for y, x in pairs:
            if y in found and x in found:
                return values.stacked(found[y], found[x]), unit
    return None, "px"


def _probe(probe: AnyArray, size: tuple[int, int]) -> values.FoundProbe:
    """The probe of MATLAB's (H, W), (H, W, modes) or (H, W, modes, OPR), or of the contract's order.

    The sizes of patterns or, where the probe has others, a square decide where its plane is.
    """
    first, last = probe.shape[:2], probe.shape[-2:]
    if probe.ndim < 3 or (first != size and (last == size or first[0] != first[1])):
        return values.find_probe(np.ascontiguousarray(probe))
    found = values.find_probe(np.ascontiguousarray(probe.transpose(*range(probe.ndim - 1, 1, -1), 0, 1)))
    if first != last:
        return found
    said = f"The probe has the shape {probe.shape}; its first two axes are read as its plane, as MATLAB has them."
    return replace(found, warnings=(*found.warnings, said))


def _object(obj: AnyArray | None) -> ComplexArray | None:
    if obj is None or obj.dtype.kind not in "fc" or obj.ndim not in (2, 3) or 0 in obj.shape:
        return None
    if obj.ndim == 3 and min(obj.shape) > 1:
        raise several_slices(obj.shape[2])
    return np.ascontiguousarray(obj.reshape([n for n in obj.shape if n > 1] if obj.ndim == 3 else obj.shape))


def _bad(found: dict[str, AnyArray], shape: tuple[int, ...]) -> BoolArray | None:
    """``mask`` of PtychoShelves is 1 where a pixel is good; ``bad_pixels`` of the contract where it is bad."""
    for name, good in (("bad_pixels", 0), ("mask", 1)):
        if name in found and found[name].shape == shape:
            return values.bad_pixels(found[name], good=good)
    return None


def _geometry(found: dict[str, AnyArray]) -> Geometry:
    number = {name: values.one_number(found[name]) for name in _NUMBERS if name in found}
    wavelength, dx, pixel = number.get("lambda"), number.get("dx"), number.get("det_pixel_size")
    energy = number.get("energy")  # keV
    if energy is not None:
        energy *= 1e3
    elif wavelength is not None and wavelength > 0:
        energy = EV_METRES / wavelength
    return Geometry(
        energy_eV=energy,
        distance_m=number.get("z"),
        detector_pixel_m=None if pixel is None else (pixel, pixel),
        object_pixel_m=None if dx is None else (dx, dx),
    )


def sniff_fold_slice(path: Path) -> bool:
    """Whether it is one of the pair ``*_dp.hdf5`` and ``*_para.hdf5``."""
    if _version(path) is not None or not is_hdf5(path) or path.stem.rpartition("_")[2] not in ("dp", "para"):
        return False
    with Hdf5Tree(path) as tree:
        mine = any(isinstance(tree.find(name), h5py.Dataset) for name in ("dp", "ppX"))
    return mine and not sniff_training_pair(path)


def read_fold_slice(path: Path) -> RawScan:
    """Patterns of ``*_dp.hdf5`` with positions and geometry of ``*_para.hdf5`` beside it."""
    base, kind = path.stem.rpartition("_")[::2]
    dp, para = (path if kind == name else path.with_name(f"{base}_{name}{path.suffix}") for name in ("dp", "para"))
    for file in (dp, para):
        if (why := why_unreadable(file)) is not None:
            raise DataError(f"{file} {why}; fold_slice's patterns and positions are a pair of files.", "Put it there.")
    with Hdf5Tree(para) as tree:
        positions = values.stacked(*(values.require(tree, "positions", name) for name in ("ppY", "ppX")))
        found = {name: value for name in _NUMBERS if (value := values.array(tree, name)) is not None}
        probe = values.array(tree, *_PROBES)
    with Hdf5Tree(dp) as tree:
        patterns = values.require(tree, "patterns", "dp")
        probe = values.array(tree, *_PROBES) if probe is None else probe
        found_probe = values.find_probe(probe if probe is not None and probe.dtype.kind == "c" else None)
        bad = values.bad_pixels(values.array(tree, "bad_pixels"))
    raw = RawScan(
        patterns=patterns,
        positions=positions,
        unit="m",
        measurement=Measurement.COUNTS,
        bad_pixels=bad,
        geometry=_geometry(found),
        metadata=ScanMetadata(source="fold_slice"),
        name=base,
        notes=(f"Patterns of {dp.name} with positions of {para.name}.",),
    )
    return found_probe.of(raw)


READER = ReaderSpec("matlab", "a MATLAB file", (".mat",), sniff, read)
FOLD_SLICE_READER = ReaderSpec("fold-slice", "files of fold_slice", (".hdf5", ".h5"), sniff_fold_slice, read_fold_slice)
