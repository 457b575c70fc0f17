"""Read and write Ptychodus product files (HDF5).

The layout is that of Ptychodus 1.7: scan positions in metres, probe and object with their pixel sizes, the object
with its centre. ``position_px = (x_m - center_x_m) / pixel + (W - 1) / 2`` in the object's own array. Some datasets
are ours; Ptychodus ignores them.
"""

from __future__ import annotations

from ptychopinn.product._formats import SUFFIXES, ProductFormat, product_formats, write_product_as
from ptychopinn.product._model import Product, origin_of, product_of
from ptychopinn.product._read import read_product
from ptychopinn.product._write import (
    PLACEHOLDER_DISTANCE_M,
    PLACEHOLDER_ENERGY_EV,
    PLACEHOLDER_PIXEL_SIZE_M,
    write_product,
)

__all__ = [
    "PLACEHOLDER_DISTANCE_M",
    "PLACEHOLDER_ENERGY_EV",
    "PLACEHOLDER_PIXEL_SIZE_M",
    "SUFFIXES",
    "Product",
    "ProductFormat",
    "origin_of",
    "product_formats",
    "product_of",
    "read_product",
    "write_product",
    "write_product_as",
]
