"""Representations of dataclasses that show arrays by their shape."""

from __future__ import annotations

import reprlib
from dataclasses import fields
from enum import Enum
from typing import Any

_MAX_ITEMS = 4


class ShortRepr:
    """Base of a dataclass with ``repr=False``: arrays appear as ``float32(516, 128, 128)``, defaults not at all."""

    def __repr__(self) -> str:
        shown = [
            f"{one.name}={short(getattr(self, one.name))}"
            for one in fields(self)  # type: ignore[arg-type]
            if one.repr and getattr(self, one.name) is not one.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def short(value: Any) -> str:
    """A value in a few words: arrays by dtype and shape, long sequences by their length."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and value.shape:
        return f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"
    if isinstance(value, Enum):
        return repr(value.value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        inside = [f"{name!r}: {short(one)}" for name, one in list(value.items())[:_MAX_ITEMS]]
        return "{" + ", ".join(inside) + (", ..." if len(value) > _MAX_ITEMS else "") + "}"
    if isinstance(value, list | tuple) and len(value) > _MAX_ITEMS:
        return f"{type(value).__name__} of {len(value)}"
    return repr(value) if isinstance(value, ShortRepr) else reprlib.repr(value)
