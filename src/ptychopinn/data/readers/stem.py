"""4D-STEM: a data cube (Ry, Rx, Qy, Qx) with a calibration becomes a scan.

The calibration gives the step of the scan and the size of a detector pixel in reciprocal space, so that object pixel =
1 / (N x detector pixel).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.raw_scan import Geometry, RawScan
from ptychopinn.data.readers.hdf5_values import one_number
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray

_LENGTHS = {"a": 1e-10, "å": 1e-10, "angstrom": 1e-10, "nm": 1e-9, "pm": 1e-12, "m": 1.0, "um": 1e-6}
_ROTATION_DEG = 0.5  # less moves no pattern of a usual scan by a pixel
_TRUE = (True, 1, "True")


@dataclass(frozen=True)
class Calibration:
    """Steps (y, x) of the scan and of the detector as a file has them; None for what it does not say."""

    # Between positions; a length.
    step: tuple[float, float] | None
    step_unit: str
    # Of the detector; an inverse length.
    pixel: tuple[float, float] | None
    pixel_unit: str
    # Of the scan against the detector.
    rotation_deg: float = 0.0
    flipped: bool = False


def calibration_of(known: Mapping[str, Any]) -> Calibration:
    """The calibration under the names of py4DSTEM."""
    step, pixel, angle = (_number(known.get(name)) for name in ("R_pixel_size", "Q_pixel_size", "QR_rotation_degrees"))
    return Calibration(
        step=None if step is None else (step, step),
        step_unit=str(known.get("R_pixel_units", "")),
        pixel=None if pixel is None else (pixel, pixel),
        pixel_unit=str(known.get("Q_pixel_units", "")),
        rotation_deg=math.degrees(_number(known.get("QR_rotation")) or 0.0) if angle is None else angle,
        flipped=known.get("QR_flip") in _TRUE,
    )


def _number(value: Any) -> float | None:
    return None if value is None else one_number(value)


@dataclass(frozen=True)
class Cube:
    """An array of four axes that is not read yet."""

    shape: tuple[int, ...]  # (Ry, Rx, Qy, Qx)
    load: Callable[[], AnyArray]  # reads the values
    where: str  # names it in errors


def scan_of_cube(cube: Cube, known: Calibration, source: str, name: str) -> RawScan:
    """The scan of a cube, which is read last; positions are the raster, rows first.

    Raises
    ------
    DataError
        If it is not calibrated.
    """
    rows, columns, height, width = cube.shape
    step_factor, pixel_factor = _LENGTHS.get(known.step_unit.strip().lower()), _reciprocal(known.pixel_unit)
    numbers = (*(known.step or (0.0,)), *(known.pixel or (0.0,)))
    if known.step is None or known.pixel is None or step_factor is None or pixel_factor is None or min(numbers) <= 0:
        raise DataError(
            f"{cube.where} of shape {cube.shape} is not calibrated: the step of the scan is {known.step} "
            f"'{known.step_unit[:20]}', a detector pixel is {known.pixel} '{known.pixel_unit[:20]}' (y, x).",
            "Calibrate R_pixel_size in A or nm and Q_pixel_size in A^-1 or nm^-1 in py4DSTEM, or the axes in HyperSpy, "
            "and save again.",
        )
    pixel = (1 / (height * known.pixel[0] * pixel_factor), 1 / (width * known.pixel[1] * pixel_factor))
    steps = np.array(known.step) * step_factor
    note = (
        f"Object pixel = 1 / (N x detector pixel) = 1 / ({width} x {known.pixel[1]:.6g} {known.pixel_unit}) = "
        f"{pixel[1]:.6g} m; the step of the scan is {known.step[1]:.6g} {known.step_unit} = {steps[1] / pixel[1]:.4g} "
        "object pixels."
    )
    warnings = []
    if abs(known.rotation_deg) > _ROTATION_DEG or known.flipped:
        warnings.append(
            f"The calibration says that scan and detector are rotated by {known.rotation_deg:.4g} degrees"
            f"{' and flipped' if known.flipped else ''}; this is not applied."
        )
    return RawScan(
        patterns=cube.load().reshape(-1, height, width),
        positions=np.indices((rows, columns)).reshape(2, -1).T * steps,
        unit="m",
        measurement=Measurement.COUNTS,
        geometry=Geometry(object_pixel_m=pixel),
        metadata=ScanMetadata(source=source),
        name=name,
        notes=(note,),
        warnings=tuple(warnings),
    )


def _reciprocal(unit: str) -> float | None:
    """Factor to 1/m of a unit such as A^-1, 1/nm, $A^{-1}$."""
    given = unit.strip().lower().strip("$").replace("{", "").replace("}", "")
    plain = given.replace("^-1", "").replace("⁻¹", "").replace("1/", "").replace("-1", "")
    return None if plain == given or plain not in _LENGTHS else 1 / _LENGTHS[plain]
