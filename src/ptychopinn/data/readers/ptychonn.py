"""Training data of PtychoNN: patterns with patches of a known object as labels, in NPZ or NPY files.

Layout: PtychoNN, ``ptychonn train`` and ``infer`` (NPZ of ``reciprocal``, ``real``, ``position`` or ``scan``, and
``pixelsize``), and the files of the first paper (``arr_0`` of a raster, or ``X_test.npy``). The labels are not read: no
file says on which pixels they are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.raw_scan import Geometry, RawScan
from ptychopinn.data.readers.hdf5_values import one_number
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.data.scan_file import ScanFile, open_npz
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray, FloatArray

_MAGIC_NPY, _MAGIC_ZIP = b"\x93NUMPY", b"PK"
_PATTERNS, _UNNAMED = "reciprocal", "arr_0"
_POSITIONS = ("position", "scan")
_LABELS = "real"
_MAX_SPAN_M = 1.0  # a scan that spans more is not in metres


def sniff(path: Path) -> bool:
    """Whether it has patterns under a name of PtychoNN, or is a stack of patterns without any."""
    with path.open("rb") as stream:
        start = stream.read(6)
    if start == _MAGIC_NPY:
        return _map_array(path).ndim in (3, 4)
    if not start.startswith(_MAGIC_ZIP):
        return False
    members = open_npz(path).members
    return _PATTERNS in members or (list(members) == [_UNNAMED] and len(members[_UNNAMED].shape) in (3, 4))


def read(path: Path) -> RawScan:
    """Patterns, and positions where the file has them."""
    with path.open("rb") as stream:
        is_npy = stream.read(6) == _MAGIC_NPY
    if is_npy:
        return _scan_of(_map_array(path), path.stem, None)
    file = open_npz(path)
    if _PATTERNS not in file.members:
        return _scan_of(file.members[_UNNAMED].load(), path.stem, None)
    raw = _scan_of(file.members[_PATTERNS].load(), path.stem, Measurement.COUNTS)
    positions, unit, note = _positions(file)
    pixel = one_number(file.members["pixelsize"].load()) if "pixelsize" in file.members else None
    labels = f"The patches of '{_LABELS}' are not read." if _LABELS in file.members else ""
    return replace(
        raw,
        positions=positions,
        unit=unit,
        geometry=Geometry(object_pixel_m=None if pixel is None else (pixel, pixel)),
        notes=(*raw.notes, *(said for said in (note, labels) if said)),
    )


def _map_array(path: Path) -> AnyArray:
    found: AnyArray = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def _scan_of(patterns: AnyArray, name: str, measurement: Measurement | None) -> RawScan:
    """Patterns (n, H, W), or (rows, columns, H, W) row by row."""
    if patterns.dtype.kind == "c":
        raise DataError(
            f"The array of shape {patterns.shape} is complex: these are reconstructed patches, not patterns.",
            "Name the file of the patterns.",
        )
    notes: tuple[str, ...] = ()
    if patterns.ndim == 4:
        rows, columns = patterns.shape[:2]
        patterns = patterns.reshape(rows * columns, *patterns.shape[2:])
        notes = (f"The patterns are {rows} rows of {columns}: pattern {columns} is the first one of the second row.",)
    return RawScan(
        patterns=np.ascontiguousarray(patterns),
        positions=None,
        measurement=measurement,
        metadata=ScanMetadata(source="PtychoNN"),
        name=name,
        notes=notes,
    )


def _positions(file: ScanFile) -> tuple[FloatArray | None, Literal["px", "m"], str]:
    """(n, 2) positions (y, x), their unit, and what was decided about it."""
    key = next((key for key in _POSITIONS if key in file.members), None)
    if key is None:
        return None, "px", ""
    found = file.members[key].load()
    if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iuf":
        raise DataError(f"{key} has the shape {found.shape} and the dtype {found.dtype}.", "Save (n, 2) of y, x.")
    positions = found.astype(np.float64)
    unit: Literal["px", "m"] = "px" if len(positions) and np.ptp(positions, axis=0).max() > _MAX_SPAN_M else "m"
    return positions, unit, f"'{key}' is read as {'object pixels' if unit == 'px' else 'metres'}, y before x."


READER = ReaderSpec("ptychonn", "training data of PtychoNN", (".npz", ".npy"), sniff, read)
