"""Trusted objects, and how a reconstruction is laid beside one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.npz import read_object
from ptychopinn.errors import DataError
from ptychopinn.geometry import Frame
from ptychopinn.product import Product, read_product
from ptychopinn.typing import ComplexArray, FloatArray, StrPath

_MOST_MOVED_PX = 4.0  # that half of the positions were refined by


def read_reference(path: StrPath) -> ComplexArray:
    """The object of a product (HDF5), else of an NPZ file.

    Returns
    -------
    (H, W) complex64.

    Raises
    ------
    DataError
        As `ptychopinn.product.read_product` and `ptychopinn.data.npz.read_object`.
    """
    return read_product(path).object if Path(path).suffix.lower() in (".h5", ".hdf5") else read_object(path)


def reference_of(data: ScanDataset, path: StrPath | None) -> ComplexArray | None:
    """The trusted object of a scan: of the file named, else the scan's own unless that is a placeholder.

    Raises
    ------
    DataError
        As `read_reference`.
    """
    if path is not None:
        return read_reference(path)
    guess = data.object_guess
    return None if guess is None or bool((guess == guess.flat[0]).all()) else guess


def origin_of(product: Product, positions: FloatArray) -> tuple[int, int]:
    """Pixel (0, 0) of a product's object in the frame of the positions that its scan was measured at.

    Parameters
    ----------
    product:
        Of the scan, or of some of its patterns; its positions may have been refined.
    positions:
        (n, 2) float64 (y, x), object pixels, of the scan.

    Raises
    ------
    DataError
        If the product's positions are not those of the scan.
    """
    remedy = "Give the scan that the product was made of."
    indexes, local = product.indexes, product.local_positions
    assert indexes is not None  # set when it is made
    if len(local) == 0 or indexes.min() < 0 or indexes.max() >= len(positions):
        raise DataError(
            f"The product has {len(local)} positions that are not all among the {len(positions)} of the scan.", remedy
        )
    gaps = positions[indexes] - local
    middle = np.median(gaps, axis=0)
    if (spread := float(np.median(np.abs(gaps - middle)))) > _MOST_MOVED_PX:
        raise DataError(f"The product's positions are {spread:.3g} pixels from those of the scan.", remedy)
    y, x = np.rint(middle).astype(int).tolist()
    return y, x


def laid_into(shape: tuple[int, ...], obj: ComplexArray, origin: tuple[int, int]) -> ComplexArray:
    """An object in an array of another shape: zero where it does not reach, cut off where it sticks out.

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
