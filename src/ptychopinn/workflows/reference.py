"""Read reference objects, and place a reconstruction in the frame of one."""

from __future__ import annotations

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_object
from ptychopinn.geometry import Frame
from ptychopinn.product import SUFFIXES, read_product
from ptychopinn.typing import ComplexArray, StrPath
from ptychopinn.workflows.folders import product_file

_PRODUCTS = (".h5", ".hdf5", *SUFFIXES.values())


def read_reference(path: StrPath) -> ComplexArray:
    """Read the object of a product (HDF5, CXI, NeXus), of a run directory, or of an NPZ file.

    Returns
    -------
    (H, W) complex64.

    Raises
    ------
    DataError
        As `ptychopinn.product.read_product` and `ptychopinn.data.io.read_object`.
    """
    path = product_file(path)
    return read_product(path).object if path.suffix.lower() in _PRODUCTS else read_object(path)


def reference_of(data: ScanDataset, path: StrPath | None) -> ComplexArray | None:
    """The reference object of a scan: that of the file, else the scan's own unless it is a placeholder.

    Raises
    ------
    DataError
        As `read_reference`.
    """
    if path is not None:
        return read_reference(path)
    guess = data.object_guess
    return None if guess is None or bool((guess == guess.flat[0]).all()) else guess


def embed(shape: tuple[int, ...], obj: ComplexArray, origin: tuple[int, int]) -> ComplexArray:
    """Place an object in an array of another shape: padded with zeros, cropped at the edges.

    Parameters
    ----------
    shape:
        (H', W') of the array.
    obj:
        (H, W) complex.
    origin:
        (y, x): where pixel (0, 0) of ``obj`` lies in the array.
    """
    height, width = shape
    whole = np.zeros((height, width), obj.dtype)
    Frame((height, width)).paste(whole, obj, Frame((obj.shape[0], obj.shape[1]), origin))
    return whole
