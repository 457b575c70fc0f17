"""Arrays of any library on any device: each algorithm is written once, against the library that it is given.

Algorithms use the Python array API standard (`ArrayLibrary.xp`), and the methods of `ArrayLibrary` where libraries
differ or where the standard has no such operation. `NUMPY` is the default everywhere. A backend hands over its own
library with its predictions (`ptychopinn.reconstructor.Prediction`), and what follows stays on its device until the
object comes back.
"""

from __future__ import annotations

from ptychopinn.arrays.host import NUMPY, NumpyLibrary
from ptychopinn.arrays.library import Array, ArrayLibrary, slices_of
from ptychopinn.arrays.scatter import ScatterLibrary

__all__ = ["NUMPY", "Array", "ArrayLibrary", "NumpyLibrary", "ScatterLibrary", "slices_of"]
