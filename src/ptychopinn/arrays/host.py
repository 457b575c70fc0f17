"""NumPy on all cores: operations in pieces that fit a core's cache, in threads where that is faster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import array_api_compat.numpy
import numpy as np
import scipy.fft

from ptychopinn.arrays.library import Array, ArrayLibrary, ItemT, QuotientStep, ResultT, Sparse
from ptychopinn.parallel import ThreadPool, spread
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray

_SINGLE_THREAD = 1 << 18  # multiplications that OpenBLAS does in one thread (GEMM_MULTITHREAD_THRESHOLD)
_MIN_COLUMNS = 64  # of the pieces of a product
_ROWS = 64  # of a large array, processed at a time
_MIN_THREADED_PX = 96  # narrower windows are added in one thread, where the GIL dominates
_BLOCK_PIXELS = 1 << 18  # of a canvas, processed at a time; the overhead of Python dominates smaller blocks
_PAIRS = 256  # pairs of overlaps multiplied at a time


class NumpyLibrary(ArrayLibrary):
    """NumPy."""

    on_host = True

    def __init__(self) -> None:
        super().__init__(array_api_compat.numpy, name="NumPy")

    @contextmanager
    def session(self) -> Iterator[ArrayLibrary]:
        """The library with threads and canvases that are kept between calls."""
        with ThreadPool() as threads:
            yield _NumpySession(threads)

    def from_host(self, array: AnyArray) -> Array:
        """The array itself."""
        return array

    def to_host(self, array: Array) -> AnyArray:
        """The array itself."""
        return np.asarray(array)

    def batch_length(self, item_values: int, cached: int) -> int:
        """Items to process at a time; those that fit the cache are faster."""
        return max(cached // item_values, 1)

    def spread(self, work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
        """``[work(item) for item in items]`` in threads (NumPy releases the GIL)."""
        return spread(work, items)

    def by_rows(self, change: Callable[..., Array | tuple[Array, ...]], *arrays: Array) -> Array | tuple[Array, ...]:
        """Apply an elementwise function to large arrays in place, by blocks of rows."""

        def move(low: int) -> int:
            blocks = [array[low : low + _ROWS] for array in arrays]
            changed = change(*blocks)
            changed = changed if isinstance(changed, tuple) else (changed,)
            for block, values in zip(blocks, changed, strict=False):
                if values is not block:
                    block[...] = values
            return len(changed)

        counts = self.spread(move, range(0, len(arrays[0]), _ROWS))
        return arrays[0] if not counts or counts[0] == 1 else arrays[: counts[0]]

    def fft2(self, array: Array, norm: str = "backward") -> Array:
        """Fourier transform over the last two axes; ten times as fast as NumPy's, and keeps complex64."""
        return scipy.fft.fft2(array, norm=norm, overwrite_x=True)

    def ifft2(self, array: Array, norm: str = "backward") -> Array:
        """The inverse of `fft2`."""
        return scipy.fft.ifft2(array, norm=norm, overwrite_x=True)

    def matmul(self, a: Array, b: Array) -> Array:
        """``a @ b`` in pieces so small that BLAS uses one thread.

        Its other threads would compete with those of a predicting backend, and halve its speed.
        """
        m, k, length = a.shape[-2], a.shape[-1], b.shape[-1]
        if m * k * length <= _SINGLE_THREAD:
            return np.asarray(a @ b)
        product = np.empty((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, length), a.dtype)
        columns = min(max(_SINGLE_THREAD // max(m * k, 1), _MIN_COLUMNS), length)
        rows = min(max(_SINGLE_THREAD // max(k * columns, 1), 1), m)
        for low, left in itertools.product(range(0, m, rows), range(0, length, columns)):
            place = (..., slice(low, low + rows), slice(left, left + columns))
            np.matmul(a[..., low : low + rows, :], b[..., left : left + columns], out=product[place])
        return product

    def complex(self, real: Array, imag: Array) -> Array:
        """A complex array of two real ones of one dtype."""
        whole = np.empty(real.shape, np.result_type(real.dtype, np.complex64))
        whole.real, whole.imag = real, imag
        return whole

    def as_complex(self, pairs: Array) -> Array:
        """(..., 2) real and imaginary parts to (...,) complex, in the same memory."""
        return pairs.view(np.result_type(pairs.dtype, np.complex64))[..., 0]

    def take(self, array: Array, index: AnyArray) -> Array:
        """Rows of an array by an index."""
        return array[index]

    def conj_times(self, a: Array, b: Array) -> Array:
        """``conj(a) * b``, in place in ``a``."""
        np.conjugate(a, out=a)
        a *= b
        return a

    def cut_windows(self, obj: Array, corners: Array, size: int, outside: float | None = 1.0) -> Array:
        """Windows of an object at whole pixels."""
        height, width = obj.shape
        if outside is None:
            view = np.lib.stride_tricks.sliding_window_view(obj, (size, size))
            return view[corners[:, 0], corners[:, 1]]  # a copy
        windows = np.full((len(corners), size, size), outside, obj.dtype)
        for window, (y, x) in zip(windows, corners.tolist(), strict=True):
            y0, y1, x0, x1 = max(y, 0), min(y + size, height), max(x, 0), min(x + size, width)
            if y0 < y1 and x0 < x1:
                window[y0 - y : y1 - y, x0 - x : x1 - x] = obj[y0:y1, x0:x1]
        return windows

    def add_quotient(
        self,
        canvas: Array,
        numerators: Sequence[Array],
        denominators: Sequence[Array],
        corners: Sequence[Array],
        step: QuotientStep,
    ) -> Array:
        """Add a quotient of sums of windows; each thread processes a band of rows."""
        size = numerators[0].shape[-1]
        every = np.concatenate(corners)
        total, weight = self._canvases(canvas.shape)
        bands = self._bands(every, size, len(canvas))

        def add(band: tuple[int, int]) -> float:
            low, high = band
            for numerator, denominator, corner in zip(numerators, denominators, corners, strict=True):
                self.add_windows(total[low:high], numerator, corner - np.array([low, 0]))
                self.add_windows(weight[low:high], denominator, corner - np.array([low, 0]))
            return max((float(weight[place].max()) for place in _bounding_slices(every, size, low, high)), default=0.0)

        # The maximum of the summed denominators: overlapping windows add up.
        regularisation, peak = step.regularisation, step.peak
        floor = np.float32(regularisation * max(self.spread(add, bands)))

        def take(band: tuple[int, int]) -> None:
            places = _bounding_slices(every, size, *band)
            for place in places:
                share = np.float32(1 - regularisation) * weight[place]
                share += floor if peak is None else np.float32(regularisation) * np.maximum(weight[place], peak)
                np.divide(np.float32(step.length), share, out=share)  # a complex quotient takes three times as long
                change = total[place]
                change *= share
                canvas[place] += change
                change[:] = 0
            for place in places:
                weight[place] = 0

        self.spread(take, bands)
        return canvas

    def _canvases(self, shape: tuple[int, int]) -> tuple[ComplexArray, FloatArray]:
        """(H, W) complex64 and float32 zeros; the caller must reset them to zeros."""
        return np.zeros(shape, np.complex64), np.zeros(shape, np.float32)

    def _bands(self, corners: IntArray, size: int, height: int) -> list[tuple[int, int]]:
        """Bands of rows of a canvas (half-open), one per thread."""
        return [(0, height)]

    def shifted_products(self, images: Array, first: Array, second: Array, offsets: Array) -> Array:
        """Inner products of pairs of images over their overlaps; pairs with the same offset are computed together."""
        values = np.zeros(len(first), np.complex128)
        size, mirrored = images.shape[-1], images.conj()
        order = np.lexsort((offsets[:, 1], offsets[:, 0]))
        offsets, first, second = offsets[order], first[order], second[order]
        changes = (np.diff(offsets, axis=0) != 0).any(axis=1)
        bounds: list[int] = np.flatnonzero(np.r_[True, changes, True]).tolist() if len(first) else []
        for start, stop in pairwise(bounds):
            dy, dx = (int(v) for v in offsets[start])
            if max(abs(dy), abs(dx)) >= size:
                continue
            a = (slice(max(dy, 0), size + min(dy, 0)), slice(max(dx, 0), size + min(dx, 0)))
            b = (slice(max(-dy, 0), size + min(-dy, 0)), slice(max(-dx, 0), size + min(-dx, 0)))
            for low in range(start, stop, _PAIRS):
                chunk = slice(low, min(low + _PAIRS, stop))
                left, right = images[(first[chunk], *a)], mirrored[(second[chunk], *b)]
                values[order[chunk]] = np.einsum("kyx,kyx->k", left, right)
        return values

    def sparse_product(self, matrix: Sparse) -> Callable[[Array], Array]:
        """A function that multiplies a sparse matrix by (n,) vectors."""
        return lambda vector: matrix @ vector


class _NumpySession(NumpyLibrary):
    """NumPy with threads and canvases that are kept between calls."""

    def __init__(self, threads: ThreadPool) -> None:
        super().__init__()
        self._threads = threads
        self._kept: tuple[ComplexArray, FloatArray] | None = None

    def spread(self, work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
        return self._threads.map(work, items)

    def _canvases(self, shape: tuple[int, int]) -> tuple[ComplexArray, FloatArray]:
        if self._kept is None or self._kept[0].shape != shape:
            self._kept = super()._canvases(shape)
        return self._kept

    def _bands(self, corners: IntArray, size: int, height: int) -> list[tuple[int, int]]:
        """Bands with similar numbers of windows."""
        if size < _MIN_THREADED_PX:
            return super()._bands(corners, size, height)
        count = self._threads.count
        middles = np.quantile(corners[:, 0] + size // 2, np.arange(1, count) / count).astype(int).tolist()
        return list(pairwise(sorted({0, *middles, height})))


def _bounding_slices(corners: IntArray, size: int, low: int, high: int) -> list[tuple[slice, slice]]:
    """Slices of a band of rows that cover all windows in it: each window, or their bounding box if it is smaller."""
    begin, end = np.maximum(corners[:, 0], low), np.minimum(corners[:, 0] + size, high)
    met = begin < end
    begin, end, left = begin[met], end[met], corners[met, 1]
    if not met.any():
        return []
    top, bottom, across = int(begin.min()), int(end.max()), slice(int(left.min()), int(left.max()) + size)
    width = across.stop - across.start
    if (bottom - top) * width <= size * (end - begin).sum():
        step = max(_BLOCK_PIXELS // width, 1)
        return [(slice(y, min(y + step, bottom)), across) for y in range(top, bottom, step)]
    spans = zip(begin.tolist(), end.tolist(), left.tolist(), strict=True)
    return [(slice(y, stop), slice(x, x + size)) for y, stop, x in spans]


NUMPY = NumpyLibrary()
"""The default library."""
