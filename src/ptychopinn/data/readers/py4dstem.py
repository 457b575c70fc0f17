"""4D-STEM in HDF5, as py4DSTEM writes it: a data cube (Ry, Rx, Qy, Qx) and a calibration.

Layout: EMD 1.0 (py4DSTEM 0.13 and later: groups with ``emd_group_type``) and py4DSTEM 0.12 and earlier
(``4DSTEM_experiment``).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import h5py

from ptychopinn.data.hdf5 import is_hdf5
from ptychopinn.data.hdf5_tree import Hdf5Tree
from ptychopinn.data.raw_scan import RawScan
from ptychopinn.data.readers import hdf5_values as values
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.data.readers.stem import Cube, calibration_of, scan_of_cube


def sniff(path: Path) -> bool:
    """Whether it has a data cube of four axes."""
    if not is_hdf5(path):
        return False
    with Hdf5Tree(path) as tree:
        return _cube(tree) is not None


def read(path: Path) -> RawScan:
    """The first data cube."""
    with Hdf5Tree(path) as tree:
        data = _cube(tree)
        if data is None:
            raise values.missing(tree, "data cube of four axes", ("datacube/data",))
        cube = Cube(data.shape, partial(values.values_of, tree, data), f"{tree.path}: the cube {str(data.name)[:80]}")
        return scan_of_cube(cube, calibration_of(_known(tree)), "py4DSTEM", path.stem)


def _cube(tree: Hdf5Tree) -> Any | None:
    """The dataset of the first data cube."""
    if tree.find("4DSTEM_experiment") is None and not any(
        values.attribute_text(item, "emd_group_type") for item in tree.walk() if isinstance(item, h5py.Group)
    ):
        return None
    for item in tree.walk():
        if isinstance(item, h5py.Dataset) and item.ndim == 4 and item.dtype.kind in "iuf" and item.size:
            return item
    return None


def _known(tree: Hdf5Tree) -> dict[str, Any]:
    """Attributes and small datasets of the groups called calibration."""
    known: dict[str, Any] = {}
    for item in tree.walk():
        if isinstance(item, h5py.Group) and str(item.name).rpartition("/")[2] == "calibration":
            known |= {str(name): item.attrs[name] for name in item.attrs}
            for name in item:
                value = tree.member(item, name)
                if isinstance(value, h5py.Dataset) and value.size == 1:
                    is_text = h5py.check_string_dtype(value.dtype) is not None
                    known[name] = values.text(tree, value.name) if is_text else values.values_of(tree, value).item()
    return {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for name, value in known.items()
    }


READER = ReaderSpec("py4dstem", "4D-STEM of py4DSTEM", (".h5", ".hdf5", ".emd"), sniff, read)
