"""Lazy selection of rows of a large array."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychopinn.spill import SpillableRows
from ptychopinn.typing import AnyArray, IntArray

_LARGE_BYTES = 1 << 28


class LazyRows:
    """A selection along the first axis of an array in memory or in a file, copied only on access.

    The array is (n, ...), or a selection of one; ``index`` is (k,) int64, the rows in order.
    """

    def __init__(self, array: AnyArray | LazyRows | SpillableRows, index: IntArray) -> None:
        self._array: AnyArray | SpillableRows = array._array if isinstance(array, LazyRows) else array
        self._index: IntArray = array._index[index] if isinstance(array, LazyRows) else index

    @property
    def shape(self) -> tuple[int, ...]:
        """(k, ...)."""
        return (len(self._index), *self._array.shape[1:])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._array.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the array."""
        return self._array.dtype

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, key: int | slice | npt.NDArray[Any]) -> AnyArray:
        """Copy rows, selected by an integer, a slice or an array of integers."""
        index = self._index[key]
        rows: AnyArray = self._array[as_slice(index) if np.ndim(index) else index]
        return rows

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        if copy is False:
            raise ValueError("rows of an array cannot be had without a copy")
        return np.asarray(self[:], dtype)


def release_pages(array: AnyArray | LazyRows | SpillableRows) -> None:
    """Release the pages of a large memory-mapped file from this process.

    Otherwise reading a file of many GiB counts as that much memory, and fails where memory is limited.
    """
    held: Any = array._array if isinstance(array, LazyRows) else array
    if not isinstance(held, np.ndarray) or held.nbytes < _LARGE_BYTES:
        return
    while isinstance(held, np.ndarray):
        held = held.base
    if isinstance(held, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        held.madvise(mmap.MADV_DONTNEED)


def as_slice(index: IntArray | slice) -> IntArray | slice:
    """The same rows as a slice, if they are consecutive."""
    if isinstance(index, slice) or len(index) == 0 or index[0] < 0 or (np.diff(index) != 1).any():
        return index
    return slice(int(index[0]), int(index[-1]) + 1)


def take_rows(array: AnyArray | LazyRows | SpillableRows, index: IntArray) -> AnyArray | LazyRows:
    """Rows of an array without a copy: a view if they are consecutive, else `LazyRows`."""
    rows = as_slice(index)
    if isinstance(array, np.ndarray) and isinstance(rows, slice):
        view: AnyArray = array[rows]
        return view
    return LazyRows(array, index)
