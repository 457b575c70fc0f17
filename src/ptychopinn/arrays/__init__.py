"""Array libraries: algorithms are written once and run with the arrays of any library on any device.

Algorithms use the Python array API standard (`ArrayLibrary.xp`), and methods of `ArrayLibrary` where libraries differ
or the standard lacks an operation. `NUMPY` is the default. A backend returns its own library with its predictions
(`ptychopinn.reconstructor.Prediction`); stitching and refinement then run on its device.
"""

from __future__ import annotations

from ptychopinn.arrays.host import NUMPY, NumpyLibrary
from ptychopinn.arrays.library import Array, ArrayLibrary, QuotientStep, RepeatedStep, slices_of
from ptychopinn.arrays.scatter import ScatterLibrary

__all__ = [
    "NUMPY",
    "Array",
    "ArrayLibrary",
    "NumpyLibrary",
    "QuotientStep",
    "RepeatedStep",
    "ScatterLibrary",
    "slices_of",
]
