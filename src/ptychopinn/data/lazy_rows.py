"""Lazy selection of rows of a large array."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychopinn.spill import SpillableRows
from ptychopinn.typing import AnyArray, IntArray, StrPath

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


@dataclass(frozen=True)
class MappedRows:
    """Where the rows of an array are in a file, so that another process can map them."""

    # The file, and where the array begins.
    path: str
    offset: int
    # Of the array.
    dtype: str
    shape: tuple[int, ...]

    def open(self) -> AnyArray:
        """The array, memory-mapped read-only. Raises OSError or ValueError if the file is not what it was."""
        return np.asarray(np.memmap(self.path, np.dtype(self.dtype), "r", self.offset, tuple(self.shape)))


def mapped_rows(array: AnyArray | LazyRows | SpillableRows, path: StrPath) -> tuple[MappedRows, IntArray | None] | None:
    """Where the rows of an array are in a file, and which of them it has (None: all); None if not in this file."""
    held: Any = array._array if isinstance(array, LazyRows) else array
    root = held
    while isinstance(root, np.ndarray) and not isinstance(root.base, mmap.mmap):
        root = root.base
    if not isinstance(root, np.memmap) or root.filename is None or not held.flags.c_contiguous:
        return None
    if not os.path.exists(root.filename) or not os.path.samefile(root.filename, path):
        return None
    offset = root.offset + held.ctypes.data - root.ctypes.data
    place = MappedRows(os.path.abspath(path), offset, held.dtype.str, held.shape)
    return place, array._index if isinstance(array, LazyRows) else None
