"""Array libraries for tests: those that the core's algorithms are said to work with, beside NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.typing import AnyArray


def needed(module: str) -> ModuleType:
    """A module; the test is skipped, and says which one is missing, where it is not installed."""
    found: ModuleType = pytest.importorskip(module)
    return found


class StrictLibrary(ArrayLibrary):
    """`array_api_strict`, which refuses whatever is not in the standard.

    Parameters
    ----------
    budget_bytes:
        Of the device that it stands for.
    """

    def __init__(self, budget_bytes: int = 1 << 30) -> None:
        super().__init__(needed("array_api_strict"))
        self._budget_bytes = budget_bytes

    @property
    def budget_bytes(self) -> int:
        """As it was said."""
        return self._budget_bytes

    def put(self, array: Array, place: Any, values: Array) -> Array:
        """The standard lets nobody change rows by an index: one after another."""
        if isinstance(place, tuple):
            return super().put(array, place, values)
        for number, row in enumerate(np.asarray(place).tolist()):
            array[row, ...] = values[number, ...]
        return array


class JaxLibrary(ArrayLibrary):
    """JAX, whose arrays cannot be changed."""

    def __init__(self) -> None:
        needed("jax").config.update("jax_enable_x64", True)
        super().__init__(needed("jax.numpy"))

    @property
    def budget_bytes(self) -> int:
        """Enough for the scans of tests."""
        return 1 << 30

    def put(self, array: Array, place: Any, values: Array) -> Array:
        """A changed copy."""
        return array.at[place].set(values)

    def add_windows(self, canvas: Array, windows: Array, corners: Array) -> Array:
        """All at once."""
        height, width = canvas.shape
        pixel = self.arange(windows.shape[-1])
        rows, columns = (corners[:, k, None] + pixel for k in (0, 1))
        # Beyond the end is dropped; before the beginning would count from the end.
        rows, columns = self.xp.where(rows < 0, height, rows), self.xp.where(columns < 0, width, columns)
        return canvas.at[rows[:, :, None], columns[:, None, :]].add(windows, mode="drop")


@contextmanager
def library_of(name: str) -> Iterator[ArrayLibrary]:
    """A library by its name."""
    if name == "numpy session":
        with NUMPY.session() as library:
            yield library
    else:
        yield {"numpy": lambda: NUMPY, "strict": StrictLibrary, "jax": JaxLibrary}[name]()


class CountingLibrary(StrictLibrary):
    """Remembers which arrays come from the host, and go to it."""

    def __init__(self, budget_bytes: int = 1 << 30) -> None:
        super().__init__(budget_bytes)
        self.came: list[tuple[int, ...]] = []
        self.went: list[tuple[int, ...]] = []

    def from_host(self, array: AnyArray) -> Array:
        """Counted."""
        self.came.append(np.shape(array))
        return super().from_host(array)

    def to_host(self, array: Array) -> AnyArray:
        """Counted."""
        self.went.append(tuple(array.shape))
        return super().to_host(array)
