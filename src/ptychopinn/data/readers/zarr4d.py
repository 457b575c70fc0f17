"""4D-STEM in zarr: an array (Ry, Rx, Qy, Qx) with its calibration, in a folder or a zip file, of version 2 or 3.

The calibration is that of attributes with the names of py4DSTEM (of the array, of the groups that it lies in, or of a
group ``calibration``), or of the axes ``axis-0`` to ``axis-3`` that HyperSpy writes (``.zspy``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ptychopinn.data.raw_scan import RawScan
from ptychopinn.data.readers.hdf5_values import one_number
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.data.readers.stem import Calibration, Cube, calibration_of, scan_of_cube
from ptychopinn.data.readers.zarr_store import Node, ZarrStore, is_store
from ptychopinn.errors import DataError

_CALIBRATION = "calibration"


def read(path: Path) -> RawScan:
    """The one array of four axes.

    Raises
    ------
    DataError
        If there is none or more than one, or if it is not calibrated.
    PluginError
        If zarr is not installed.
    """
    store = ZarrStore(path)
    cubes = store.arrays(axes=4)
    if len(cubes) != 1:
        raise DataError(
            f"{path} has {len(cubes)} arrays of four axes (rows, columns, patterns): {store.listing()}.",
            "Name the folder of the one with the patterns, or write a store with it alone.",
        )
    node = cubes[0]
    assert node.shape is not None
    cube = Cube(node.shape, partial(store.load, node), f"{path}: the array {node.key[:80] or '/'}")
    known = _axes(store, node) or calibration_of(_attributes(store, node))
    raw = scan_of_cube(cube, known, "zarr", path.name.partition(".")[0] or "scan")
    missing, chunks = store.missing_chunks(node)
    if not missing:
        return raw
    said = f"{missing} of the {chunks} chunks of the array are not stored; zarr takes the fill value for them."
    return replace(raw, warnings=(*raw.warnings, said))


def _attributes(store: ZarrStore, cube: Node) -> dict[str, Any]:
    """Attributes of the groups called calibration, of those that the array lies in, and its own."""
    found: dict[str, Any] = {}
    for node in store.nodes:
        inside = not node.key or cube.key == node.key or cube.key.startswith(f"{node.key}/")
        if inside or node.key.rpartition("/")[2] == _CALIBRATION:
            own = node.attributes.get(_CALIBRATION)
            found |= {**node.attributes, **(own if isinstance(own, dict) else {})}
    return found


def _axes(store: ZarrStore, cube: Node) -> Calibration | None:
    """The calibration of HyperSpy's four axes beside the array; None if they are not there.

    Raises
    ------
    DataError
        If the first two are not those of the scan, or their units differ.
    """
    group = cube.key.rpartition("/")[0]
    found = [_axis(store, f"{group}/axis-{k}".lstrip("/")) for k in range(4)]
    if any(axis is None for axis in found):
        return None
    axes = [axis for axis in found if axis is not None]
    if [bool(axis.get("navigate", k < 2)) for k, axis in enumerate(axes)] != [True, True, False, False]:
        raise DataError(
            f"{store.path}: the axes of {cube.key[:80]} are not two of the scan and then two of the patterns.",
            "Transpose the signal to two navigation axes (HyperSpy: transpose(signal_axes=2)), and save it again.",
        )
    scales = [one_number(axis.get("scale", ())) for axis in axes]
    units = [str(axis.get("units", "")) for axis in axes]
    if units[0] != units[1] or units[2] != units[3]:
        raise DataError(f"{store.path}: the axes have the units {units}.", "Give both of a pair the same unit.")
    return Calibration(_pair(scales[0], scales[1]), units[0], _pair(scales[2], scales[3]), units[2])


def _axis(store: ZarrStore, key: str) -> Mapping[str, Any] | None:
    return next((node.attributes for node in store.nodes if node.key == key), None)


def _pair(y: float | None, x: float | None) -> tuple[float, float] | None:
    return None if y is None or x is None else (y, x)


READER = ReaderSpec("zarr", "4D-STEM in zarr", (".zarr", ".zspy", ".zip"), is_store, read)
