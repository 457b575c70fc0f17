"""Store predicted patches on whole pixels until their phases are known."""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.data.lazy_rows import LazyRows
from ptychopinn.spill import SpillableRows
from ptychopinn.typing import AnyArray, IntArray


class PlacedPatches(Protocol):
    """(n, size, size) complex64 patches on whole pixels, read by number."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, size, size)."""
        ...

    def __getitem__(self, key: slice | IntArray) -> Array:
        """Some patches, as arrays of the library."""
        ...


class PatchStore:
    """Patches in device memory, else in host memory up to a budget, else in a temporary file.

    A context manager, or `close` it. The budget of a device belongs to its library.

    Raises
    ------
    ResourceError
        If the disk is full.
    """

    def __init__(self, count: int, size: int, library: ArrayLibrary = NUMPY, host_budget_bytes: int = 1 << 30) -> None:
        self.shape = (count, size, size)
        self.library = library
        self._here: Array = None
        self._rows: SpillableRows | None = None
        if not library.on_host and 8 * count * size**2 <= library.budget_bytes:
            self._here = library.zeros(self.shape, "complex64")
        else:
            self._rows = SpillableRows((size, size), np.complex64, budget_bytes=host_budget_bytes, expected=count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release memory and disk."""
        self._here = None
        if self._rows is not None:
            self._rows.close()

    def put(self, indices: IntArray, patches: Array) -> None:
        """Store (b, size, size) complex64 patches of the library under their numbers."""
        if self._rows is not None:
            self._rows[indices] = self.library.to_host(patches)
        else:
            self._here = self.library.put(self._here, self.library.from_host(indices), patches)

    def __getitem__(self, key: slice | IntArray) -> Array:
        if self._rows is not None:
            return self.library.from_host(self._rows[key])
        return self._here[key, ...] if isinstance(key, slice) else self.library.take(self._here, key)


class HostPatches:
    """Patches in rows on the host, read as arrays of a library."""

    def __init__(self, rows: AnyArray | LazyRows | SpillableRows, library: ArrayLibrary) -> None:
        self._rows, self._library = rows, library

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, size, size)."""
        return tuple(self._rows.shape)

    def __getitem__(self, key: slice | IntArray) -> Array:
        return self._library.from_host(self._rows[key])
