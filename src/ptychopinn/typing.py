"""Array aliases and the one table of axis orders.

Axis order everywhere in the core:

===========  =========================  ====================================================
name         axes                       unit
===========  =========================  ====================================================
patterns     (position, y, x)           counts or amplitude, DC at ``[N//2, N//2]``
positions    (position, 2) as (y, x)    object pixels, float64; integers are pixel centres
probe        (mode, y, x)               square root of counts (unitary FFT)
object       (y, x)                     transmission, no unit
patches      (position, y, x)           transmission, centred on the position
===========  =========================  ====================================================

A backend's own layout (channels last, say) stays inside its ``batches`` module.
"""

from __future__ import annotations

from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

AnyArray: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
ComplexArray: TypeAlias = npt.NDArray[np.complexfloating[Any, Any]]
StrPath: TypeAlias = str | PathLike[str]
