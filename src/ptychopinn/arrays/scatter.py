"""Base of libraries for devices, where many threads add values to one array at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ptychopinn.arrays.library import Array, ArrayLibrary, QuotientStep, Sparse
from ptychopinn.typing import AnyArray

_ROW_ENTRIES = 32  # of a sparse matrix that are multiplied together
_SUM_BITS = 62  # of a sum of whole numbers
_TINY = float(np.finfo(np.float32).tiny)


def add_repeatably(
    library: ArrayLibrary,
    target: Array,
    index: Array,
    values: Array,
    add_integers: Callable[[Array, Array, Array], object],
) -> None:
    """Add values to an array, in place, with sums that repeat to the bit in whatever order a device adds.

    Rounding depends on the order. So whole numbers are added, which stand for the values to 2^-62 of the largest
    possible sum.

    (m, k) values are added to rows of a real (n, k) target, by an (m,) int64 index that may repeat; ``add_integers``
    does the same with int64 for both.
    """
    xp, count = library.xp, index.shape[0]
    if count == 0:
        return
    values = library.cast(values, "float64")
    unit = (xp.max(xp.abs(values)) + _TINY) * 2.0 ** (math.ceil(math.log2(count)) - _SUM_BITS)
    sums = library.zeros(target.shape, "int64")
    add_integers(sums, index, library.cast(xp.round(values / unit), "int64"))
    target += library.cast(library.cast(sums, "float64") * unit, str(target.dtype).rpartition(".")[2])


class ScatterLibrary(ArrayLibrary, ABC):
    """A library with mutable arrays and an operation that adds values at repeated indices."""

    def __init__(self, xp: Any, device: Any = None, name: str = "") -> None:
        super().__init__(xp, device, name)
        self._grids: dict[tuple[int, int], Array] = {}  # pixels of a window by widths of window and array

    def from_blocks(
        self, shape: tuple[int, ...], blocks: Iterable[AnyArray], prepare: Callable[[Array], Array]
    ) -> Array:
        """Make one array from blocks of rows on the host, in memory that is allocated once."""
        whole: Array | None = None
        row = 0
        for block in blocks:
            array = prepare(self.from_host(block))
            if whole is None:
                whole = self.xp.empty(shape, dtype=array.dtype, device=self.device)
            whole[row : row + array.shape[0]] = array
            row += array.shape[0]
        return whole

    @abstractmethod
    def add_at(self, target: Array, index: Array, values: Array) -> Array:
        """Add (k,) values to an (n,) array at a (k,) int64 index that may repeat; may change ``target``."""

    def cut_windows(self, obj: Array, corners: Array, size: int, outside: float | None = 1.0) -> Array:
        """Windows of an object at whole pixels."""
        if outside is not None:
            return super().cut_windows(obj, corners, size, outside)
        xp = self.xp
        flat = self._flat(corners, size, obj.shape[1])
        return xp.reshape(xp.take(xp.reshape(obj, (-1,)), flat, axis=0), (-1, size, size))

    def add_windows(self, canvas: Array, windows: Array, corners: Array) -> Array:
        """Add windows to a canvas, cropped where they leave it."""
        xp = self.xp
        height, width = canvas.shape
        rows, columns = self._pixels(corners, windows.shape[-1])
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        flat = xp.clip(rows, 0, height - 1)[:, :, None] * width + xp.clip(columns, 0, width - 1)[:, None, :]
        values = xp.where(inside, windows, xp.zeros_like(windows))
        total = self.add_at(xp.reshape(canvas, (-1,)), xp.reshape(flat, (-1,)), xp.reshape(values, (-1,)))
        return xp.reshape(total, canvas.shape)

    def add_quotient(
        self,
        canvas: Array,
        numerators: Sequence[Array],
        denominators: Sequence[Array],
        corners: Sequence[Array],
        step: QuotientStep,
    ) -> Array:
        """Add a quotient of sums of windows, over the whole canvas or only the windows, whichever is smaller."""
        xp, (height, width) = self.xp, canvas.shape
        flat = self._flat(self._concatenate(corners), numerators[0].shape[-1], width)
        numerator, denominator = (xp.reshape(self._concatenate(parts), (-1,)) for parts in (numerators, denominators))
        total = self.add_at(self.zeros((height * width,), "complex64"), flat, numerator)
        weight = self.add_at(self.zeros((height * width,), "float32"), flat, denominator)
        everywhere = flat.shape[0] >= height * width
        weight = weight if everywhere else xp.take(weight, flat, axis=0)
        share = step.share(weight, xp)
        if everywhere:
            canvas += xp.reshape(total * share, canvas.shape)
            return canvas
        # Pixels in several windows are written repeatedly with the same value.
        changed = xp.reshape(canvas, (-1,))
        changed[flat] = xp.take(changed, flat, axis=0) + xp.take(total, flat, axis=0) * share
        return xp.reshape(changed, canvas.shape)

    def sparse_product(self, matrix: Sparse) -> Callable[[Array], Array]:
        """A function that multiplies a sparse matrix with (n,) vectors.

        Rows are split into pieces of equal length, so that the sums are bitwise reproducible.
        """
        xp, counts = self.xp, np.diff(matrix.indptr)
        pieces = np.maximum(-(-counts // _ROW_ENTRIES), 1)
        first = np.cumsum(pieces) - pieces  # of each row
        owner = np.repeat(np.arange(len(counts)), pieces)
        piece = np.arange(len(owner)) - first[owner]
        entry = (matrix.indptr[:-1][owner] + piece * _ROW_ENTRIES)[:, None] + np.arange(_ROW_ENTRIES)
        there = entry < matrix.indptr[1:][owner][:, None]
        entry = np.where(there, entry, 0)
        values = self.from_host(np.where(there, matrix.data[entry], 0) if matrix.nnz else np.zeros(there.shape))
        columns = self.from_host((matrix.indices[entry] if matrix.nnz else entry).astype(np.int64).ravel())
        several: Array | None = None
        if len(owner) > len(counts):
            number = first[:, None] + np.arange(pieces.max())
            number = np.where(number < (first + pieces)[:, None], number, len(owner))  # index of an appended zero
            several = self.from_host(number.astype(np.int64).ravel())

        def multiply(vector: Array) -> Array:
            products = values * xp.reshape(xp.take(vector, columns, axis=0), there.shape)
            sums = xp.sum(products, axis=1)
            if several is None:
                return sums
            sums = xp.concat([sums, xp.zeros_like(sums[:1])])
            return xp.sum(xp.reshape(xp.take(sums, several, axis=0), (len(counts), -1)), axis=1)

        return multiply

    def _concatenate(self, parts: Sequence[Array]) -> Array:
        return parts[0] if len(parts) == 1 else self.xp.concat(list(parts))

    def _flat(self, corners: Array, size: int, width: int) -> Array:
        """(b size^2,) numbers of the pixels of windows that stay inside an array of this width."""
        if (size, width) not in self._grids:
            pixel = self.arange(size)
            self._grids[size, width] = self.xp.reshape(pixel[:, None] * width + pixel[None, :], (-1,))
        first = corners[:, 0] * width + corners[:, 1]
        return self.xp.reshape(first[:, None] + self._grids[size, width][None, :], (-1,))

    def _pixels(self, corners: Array, size: int) -> tuple[Array, Array]:
        """(b, size) rows and (b, size) columns of windows."""
        pixel = self.arange(size)[None, :]
        return corners[:, 0][:, None] + pixel, corners[:, 1][:, None] + pixel
