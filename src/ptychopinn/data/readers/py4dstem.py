"""4D-STEM in HDF5, as py4DSTEM writes it: a data cube (Ry, Rx, Qy, Qx) and a calibration.

Layout: EMD 1.0 (py4DSTEM 0.13 and later: groups with ``emd_group_type``) and py4DSTEM 0.12 and earlier
(``4DSTEM_experiment``). The calibration gives the step of the scan and the size of a detector pixel in reciprocal
space, so that object pixel = 1 / (N x detector pixel).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.hdf5 import is_hdf5
from ptychopinn.data.hdf5_tree import Hdf5Tree
from ptychopinn.data.raw_scan import Geometry, RawScan
from ptychopinn.data.readers import hdf5_values as values
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.errors import DataError
from ptychopinn.typing import FloatArray

_LENGTHS = {"a": 1e-10, "å": 1e-10, "angstrom": 1e-10, "nm": 1e-9, "pm": 1e-12, "m": 1.0, "um": 1e-6}
_ROTATION_DEG = 0.5  # less moves no pattern of a usual scan by a pixel


def sniff(path: Path) -> bool:
    """Whether it has a data cube of four axes."""
    if not is_hdf5(path):
        return False
    with Hdf5Tree(path) as tree:
        return _cube(tree) is not None


def read(path: Path) -> RawScan:
    """The first data cube; positions are the raster, rows first."""
    with Hdf5Tree(path) as tree:
        cube = _cube(tree)
        if cube is None:
            raise values.missing(tree, "data cube of four axes", ("datacube/data",))
        data = values.values_of(tree, cube)
        known = _calibration(tree)
        rows, columns, height, width = data.shape
        step, pixel, notes = _sizes(tree, cube, known, (height, width))
        grid = np.indices((rows, columns)).reshape(2, -1).T.astype(np.float64)
        angle = known.get("QR_rotation_degrees", math.degrees(_number(known.get("QR_rotation")) or 0.0))
        turned = _number(angle) or 0.0
        warnings = []
        if abs(turned) > _ROTATION_DEG or known.get("QR_flip") in (True, 1, "True"):
            warnings.append(
                f"The calibration says that scan and detector are rotated by {turned:.4g} degrees"
                f"{' and flipped' if known.get('QR_flip') in (True, 1, 'True') else ''}; this is not applied."
            )
        return RawScan(
            patterns=data.reshape(-1, height, width),
            positions=grid * step,
            unit="m",
            measurement=Measurement.COUNTS,
            geometry=Geometry(object_pixel_m=pixel),
            metadata=ScanMetadata(source="py4DSTEM"),
            name=path.stem,
            notes=tuple(notes),
            warnings=tuple(warnings),
        )


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


def _calibration(tree: Hdf5Tree) -> dict[str, Any]:
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


def _number(value: Any) -> float | None:
    return None if value is None else values.one_number(value)


def _sizes(
    tree: Hdf5Tree, cube: Any, known: dict[str, Any], shape: tuple[int, int]
) -> tuple[FloatArray, tuple[float, float], list[str]]:
    """(y, x) step of the scan and object pixel in metres, and the sums.

    Raises
    ------
    DataError
        If the file is not calibrated.
    """
    step, step_unit = _number(known.get("R_pixel_size")), str(known.get("R_pixel_units", ""))
    q, q_unit = _number(known.get("Q_pixel_size")), str(known.get("Q_pixel_units", ""))
    r_factor = _LENGTHS.get(step_unit.strip().lower())
    q_factor = _reciprocal(q_unit)
    if not step or not q or r_factor is None or q_factor is None or step <= 0 or q <= 0:
        raise DataError(
            f"{tree.path} is not calibrated: the step of the scan is {step} '{step_unit[:20]}', a detector pixel is "
            f"{q} '{q_unit[:20]}' (the cube {str(cube.name)[:80]} has the shape {cube.shape}).",
            "Calibrate R_pixel_size in A or nm and Q_pixel_size in A^-1 or nm^-1 in py4DSTEM, and save again.",
        )
    pixel = (1 / (shape[0] * q * q_factor), 1 / (shape[1] * q * q_factor))
    note = (
        f"Object pixel = 1 / (N x detector pixel) = 1 / ({shape[1]} x {q:.6g} {q_unit}) = {pixel[1]:.6g} m; "
        f"the step of the scan is {step:.6g} {step_unit} = {step * r_factor / pixel[1]:.4g} object pixels."
    )
    return np.array([step * r_factor, step * r_factor]), pixel, [note]


def _reciprocal(unit: str) -> float | None:
    """Factor to 1/m of a unit such as A^-1, 1/nm."""
    plain = unit.strip().lower().replace("^-1", "").replace("⁻¹", "").replace("1/", "").replace("-1", "")
    return None if plain == unit.strip().lower() or plain not in _LENGTHS else 1 / _LENGTHS[plain]


READER = ReaderSpec("py4dstem", "4D-STEM of py4DSTEM", (".h5", ".hdf5", ".emd"), sniff, read)
