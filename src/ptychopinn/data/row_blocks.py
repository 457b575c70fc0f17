"""Make large arrays row by row: in memory, or in a temporary file that is mapped and goes with the array."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.lazy_rows import as_slice, release_pages
from ptychopinn.data.scan_file import read_into_buffer
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray, IntArray

_BLOCK_BYTES = 1 << 24


def map_rows(
    rows: AnyArray,
    change: Callable[[AnyArray], AnyArray],
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    bad: BadValues | None = None,
) -> AnyArray:
    """Apply a function to (n, ...) rows, block by block: (n, ``*shape``) of ``dtype``. Bad values are set to 0 first.

    Raises
    ------
    ResourceError
        If neither memory nor disk suffice.
    """
    kind = np.dtype(dtype)
    row = max(math.prod(shape) * kind.itemsize, rows.nbytes // max(len(rows), 1), 1)
    step = max(1, _BLOCK_BYTES // row)

    def blocks() -> Iterator[bytes]:
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            if bad is not None:
                block = np.array(block)
                bad.put(block, slice(start, start + step), 0)
            yield np.ascontiguousarray(change(block), kind).data.cast("B")  # type: ignore[misc]
            release_pages(rows)

    return _fill((len(rows), *shape), kind, blocks())


def pick_rows(array: AnyArray, index: IntArray) -> AnyArray:
    """Rows of an (n, ...) array, in the order of (k,) numbers: a view if they are consecutive, else a copy.

    Raises
    ------
    ResourceError
        If neither memory nor disk suffice.
    """
    rows = as_slice(index)
    if isinstance(rows, slice):
        view: AnyArray = array[rows]
        return view
    step = max(1, _BLOCK_BYTES // max(array.nbytes // max(len(array), 1), 1))

    def blocks() -> Iterator[bytes]:
        for start in range(0, len(index), step):
            yield np.ascontiguousarray(array[index[start : start + step]]).data.cast("B")  # type: ignore[misc]
            release_pages(array)

    return _fill((len(index), *array.shape[1:]), array.dtype, blocks())


def stack_rows(arrays: Sequence[AnyArray]) -> AnyArray:
    """Join (n_k, ...) arrays along the first axis; one array is not copied.

    Raises
    ------
    DataError
        If there is none, or their rows differ in shape.
    ResourceError
        If neither memory nor disk suffice.
    """
    if not arrays:
        raise DataError("There are no patterns.", "Give at least one.")
    if len(arrays) == 1:
        return arrays[0]
    if len({array.shape[1:] for array in arrays}) > 1:
        shapes = sorted({array.shape[1:] for array in arrays})
        raise DataError(f"Patterns of different sizes cannot be joined: {shapes[:5]}.", "Crop or pad them to one size.")
    kind = np.result_type(*arrays)

    def blocks() -> Iterator[bytes]:
        for array in arrays:
            step = max(1, _BLOCK_BYTES // max(array.nbytes // max(len(array), 1), 1))
            for start in range(0, len(array), step):
                yield np.ascontiguousarray(array[start : start + step], kind).data.cast("B")  # type: ignore[misc]
                release_pages(array)

    return _fill((sum(len(array) for array in arrays), *arrays[0].shape[1:]), kind, blocks())


def _fill(shape: tuple[int, ...], kind: np.dtype[Any], blocks: Iterator[bytes]) -> AnyArray:
    size = math.prod(shape) * kind.itemsize
    return read_into_buffer(f"An array of shape {shape}, {kind},", size, blocks).view(kind).reshape(shape)
