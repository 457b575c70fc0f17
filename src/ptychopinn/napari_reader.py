"""Open products in napari, which finds this module by the manifest ``napari.yaml`` and is not imported here.

The functions follow napari's reader contribution (npe2): layers are triples of data, keywords and kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ptychopinn.errors import DataError
from ptychopinn.product import Product, read_product

Layer = tuple[Any, dict[str, Any], str]
_UM = 1e6


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Layer]] | None:
    """The reader of a path, if it is a product; None lets napari ask others."""
    try:
        read_product(_first(path))
    except DataError:
        return None
    return read_layers


def read_layers(path: str | Sequence[str]) -> list[Layer]:
    """The layers of a product: phase, amplitude, positions and, hidden, probe and errors.

    Lengths are micrometres if the product knows its pixels, else pixels; y and x are those of the object's array.

    Raises
    ------
    DataError
        If it is no product.
    """
    return layers_of(read_product(_first(path)))


def layers_of(product: Product) -> list[Layer]:
    """The layers of a product that is in memory; see `read_layers`."""
    pixel = product.pixel_size_m
    scale = (1.0, 1.0) if pixel is None else (pixel[0] * _UM, pixel[1] * _UM)
    placed = {"scale": scale, "metadata": {"unit": "px" if pixel is None else "um"}}

    def image(values: Any, name: str, colours: str, *, visible: bool = True) -> Layer:
        return values, {"name": f"{product.name}: {name}", "colormap": colours, "visible": visible, **placed}, "image"

    layers = [
        image(np.abs(product.object), "amplitude", "gray", visible=False),
        image(np.angle(product.object), "phase", "viridis"),
        image(np.abs(product.probe[0]), "probe", "magma", visible=False),
    ]
    errors = {"standard error of the phase": product.phase_error, "coverage": product.coverage}
    layers += [image(values, name, "magma", visible=False) for name, values in errors.items() if values is not None]
    points = {"name": f"{product.name}: positions", "size": 2, "visible": False, **placed}
    layers.append((product.local_positions, points, "points"))
    return layers


def _first(path: str | Sequence[str]) -> str:
    return path if isinstance(path, str) else path[0]
