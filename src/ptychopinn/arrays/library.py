"""The interface of array libraries, based on the array API standard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from scipy.sparse.linalg import splu

from ptychopinn.errors import ResourceError
from ptychopinn.failures import retry_smaller
from ptychopinn.typing import AnyArray

_log = logging.getLogger(__name__)
_MIN_BATCH_VALUES = 1 << 16
Array: TypeAlias = Any  # of any library; the standard has no type for it
Sparse: TypeAlias = Any  # scipy's sparse arrays, which it does not type
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def slices_of(count: int, length: int) -> list[slice]:
    """Slices that cover a number of items in steps; the last one may be shorter."""
    return [slice(low, min(low + length, count)) for low in range(0, count, length)]


@dataclass(frozen=True, eq=False)
class QuotientStep:
    """The step of `ArrayLibrary.add_quotient`: its length, and what keeps its denominators from 0.

    With a peak, ``max(d, peak)`` of each pixel stands for the maximum of the denominators d, so that no pixel depends
    on windows elsewhere.
    """

    length: float | Array
    regularisation: float | Array  # share of the maximum in the denominators
    peak: float | None = None

    def share(self, weight: Array, xp: Any) -> Array:
        """What multiplies the numerators, from the sums of the denominators."""
        top = xp.max(weight) if self.peak is None else xp.clip(weight, self.peak, None)
        return self.length / ((1 - self.regularisation) * weight + self.regularisation * top)


class RepeatedStep(Generic[ResultT]):
    """A step that is taken many times on arrays of the same shapes: computed each time, or recorded and replayed."""

    def __call__(
        self, inputs: Mapping[str, Array], state: Sequence[Array], compute: Callable[[Mapping[str, Array]], ResultT]
    ) -> ResultT:
        """Take the step.

        Parameters
        ----------
        inputs:
            What differs from step to step.
        state:
            Other arrays that the step reads, or changes in place.
        compute:
            Takes the step on the inputs that it is given, in operations on arrays alone. No value is read from the
            device, and what is not an array is the same in every step.

        Returns
        -------
        What ``compute`` returns. Its arrays may be overwritten by the next step.
        """
        return compute(inputs)


class ArrayLibrary:
    """One array library on one device.

    The methods here need only the standard; subclasses make them fast, or possible for immutable arrays (JAX). Always
    use the returned array, also of methods that may change their argument.

    ``xp`` is the library's namespace, as `array_api_compat` gives it; without a ``device`` new arrays are on the
    library's default.
    """

    on_host = False
    """Whether arrays are NumPy's own, so that copies are unnecessary."""

    def __init__(self, xp: Any, device: Any = None, name: str = "") -> None:
        self.xp, self.device = xp, device
        self.batch_values = 1 << 24  # numbers per operation; a device needs large ones
        self.name = name or xp.__name__.rpartition(".")[2]

    def __str__(self) -> str:
        return self.name

    # Where arrays are

    @property
    def budget_bytes(self) -> int:
        """Bytes of the device's memory still available for patterns and patches."""
        return 0

    def from_host(self, array: AnyArray) -> Array:
        """Convert a NumPy array; may share memory."""
        return self.xp.asarray(array, device=self.device)

    def to_host(self, array: Array) -> AnyArray:
        """Convert an array to a read-only NumPy array, which may share memory. Waits for the device."""
        return np.asarray(array)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Zeros of a dtype of the standard, by its name."""
        return self.xp.zeros(shape, dtype=getattr(self.xp, dtype), device=self.device)

    def arange(self, count: int, dtype: str = "int64") -> Array:
        """0 to count - 1."""
        return self.xp.arange(count, dtype=getattr(self.xp, dtype), device=self.device)

    def frequencies(self, count: int) -> Array:
        """(count,) float64 of `numpy.fft.fftfreq`, without an upload: a step that uploads cannot be recorded."""
        k = self.arange(count, "float64")
        return self.xp.where(k < (count + 1) // 2, k, k - count) / count

    def cast(self, array: Array, dtype: str) -> Array:
        """Convert an array to a dtype of the standard by its name, without a copy if possible."""
        return self.xp.astype(array, getattr(self.xp, dtype), copy=False)

    def from_blocks(
        self, shape: tuple[int, ...], blocks: Iterable[AnyArray], prepare: Callable[[Array], Array]
    ) -> Array:
        """Make one array from blocks of rows on the host; ``prepare`` is applied to each on the device."""
        return self.xp.concat([prepare(self.from_host(block)) for block in blocks])

    # How work is cut and spread

    @contextmanager
    def session(self) -> Iterator[ArrayLibrary]:
        """A context manager for the library with shared resources, such as threads."""
        yield self

    def batch_length(self, item_values: int, cached: int) -> int:
        """Items of ``item_values`` numbers to process at a time, at least 1.

        ``cached`` numbers fit the cache of a processor core; a device uses as many as fit its memory.
        """
        return max(self.batch_values // item_values, 1)

    def spread(self, work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
        """``[work(item) for item in items]``, in parallel if that is faster."""
        return [work(item) for item in items]

    def repeated_step(self) -> RepeatedStep[ResultT]:
        """A step that will be taken many times; a device may record its operations."""
        return RepeatedStep()

    def by_rows(self, change: Callable[..., Array | tuple[Array, ...]], *arrays: Array) -> Array | tuple[Array, ...]:
        """Apply an elementwise function to large arrays (H, ...), which may be changed.

        It takes the arrays, or the same rows of all of them, and returns new values of the first ones. It may change
        its arguments.
        """
        changed = change(*arrays)
        if not isinstance(changed, tuple):
            return changed
        own = [one if all(one is not other for other in changed[:k]) else None for k, one in enumerate(changed)]
        return tuple(
            self.xp.asarray(same, copy=True) if one is None else one for one, same in zip(own, changed, strict=True)
        )

    # Operations

    def fft2(self, array: Array, norm: str = "backward") -> Array:
        """Fourier transform over the last two axes; may change ``array``."""
        return self.xp.fft.fftn(array, axes=(-2, -1), norm=norm)

    def ifft2(self, array: Array, norm: str = "backward") -> Array:
        """The inverse of `fft2`; may change ``array``."""
        return self.xp.fft.ifftn(array, axes=(-2, -1), norm=norm)

    def matmul(self, a: Array, b: Array) -> Array:
        """``a @ b`` of arrays of one dtype; leading axes broadcast."""
        return self.xp.matmul(a, b)

    def complex(self, real: Array, imag: Array) -> Array:
        """A complex array of two real ones of one dtype."""
        return real + 1j * imag

    def as_complex(self, pairs: Array) -> Array:
        """(..., 2) real and imaginary parts to (...,) complex; may share memory."""
        return self.complex(pairs[..., 0], pairs[..., 1])

    def conj_times(self, a: Array, b: Array) -> Array:
        """``conj(a) * b``; may change ``a``."""
        return self.xp.conj(a) * b

    def squared_sum(self, array: Array) -> Array:
        """Sum of the squares of a real array, float64."""
        flat = self.xp.reshape(array, (-1,))
        return self.cast(flat @ flat, "float64")

    def take(self, array: Array, index: AnyArray) -> Array:
        """Rows of an array by an index on the host, (b,) int64."""
        return self.xp.take(array, self.from_host(index), axis=0)

    def put(self, array: Array, place: Any, values: Array) -> Array:
        """Set values at slices, or at rows by a (b,) int64 index; may change ``array``."""
        array[place] = values
        return array

    def cut_windows(self, obj: Array, corners: Array, size: int, outside: float | None = 1.0) -> Array:
        """Windows of an (H, W) object at whole pixels, (b, size, size).

        Corners are (b, 2) int64 (y, x), the first pixel of each window, and may be outside the object. ``outside`` is
        the value where a window leaves it; None: no window does.
        """
        xp = self.xp
        height, width = obj.shape
        pixel = self.arange(size)[None, :]
        rows, columns = corners[:, 0][:, None] + pixel, corners[:, 1][:, None] + pixel
        if outside is None:
            flat = xp.reshape(rows[:, :, None] * width + columns[:, None, :], (-1,))
            return xp.reshape(xp.take(xp.reshape(obj, (-1,)), flat, axis=0), (-1, size, size))
        inside_y, inside_x = ((at >= 0) & (at < most) for at, most in ((rows, height), (columns, width)))
        rows, columns = xp.clip(rows, 0, height - 1), xp.clip(columns, 0, width - 1)
        flat = xp.reshape(rows[:, :, None] * width + columns[:, None, :], (-1,))
        windows = xp.reshape(xp.take(xp.reshape(obj, (-1,)), flat, axis=0), (-1, size, size))
        inside = inside_y[:, :, None] & inside_x[:, None, :]
        return xp.where(inside, windows, xp.full_like(windows, outside))

    def add_windows(self, canvas: Array, windows: Array, corners: Array) -> Array:
        """Add (b, size, size) windows to an (H, W) canvas, cropped where they leave it; may change ``canvas``.

        The adjoint of `cut_windows`, with corners as there.
        """
        height, width = canvas.shape
        size = windows.shape[-1]
        for number, (y, x) in enumerate(self.to_host(corners).tolist()):
            y0, y1, x0, x1 = max(y, 0), min(y + size, height), max(x, 0), min(x + size, width)
            if y0 < y1 and x0 < x1:
                canvas[y0:y1, x0:x1] += windows[number, y0 - y : y1 - y, x0 - x : x1 - x]
        return canvas

    def add_quotient(
        self,
        canvas: Array,
        numerators: Sequence[Array],
        denominators: Sequence[Array],
        corners: Sequence[Array],
        step: QuotientStep,
    ) -> Array:
        """Add a quotient of sums of windows, the step of the ptychographic iterative engine.

        ``canvas + step * n / ((1 - a) d + a max d)`` with n and d the sums of the windows and a the regularisation
        (Maiden, Johnson & Li, Optica 4, 736, 2017).

        The canvas is (H, W) complex64 and may be changed; no window leaves it. Numerators (b, size, size) complex64,
        denominators float32 and corners (b, 2) int64 are those of several groups of windows.
        """
        xp = self.xp
        total, weight = self.zeros(canvas.shape, "complex64"), self.zeros(canvas.shape, "float32")
        for numerator, denominator, corner in zip(numerators, denominators, corners, strict=True):
            total = self.add_windows(total, numerator, corner)
            weight = self.add_windows(weight, denominator, corner)
        return canvas + total * step.share(weight, xp)

    def shifted_products(self, images: Array, first: Array, second: Array, offsets: Array) -> Array:
        """Inner products of pairs of (m, s, s) complex images over their overlaps.

        First and second, (k,) int64, are the two images of each pair, and offsets, (k, 2) int64 (y, x), the first pixel
        of the second image in the first. (k,) complex: ``sum_p first[p] conj(second[p - offset])``; 0 where they do not
        overlap.
        """
        xp, size = self.xp, images.shape[-1]
        found = []
        step = self.batch_length(size**2, 1 << 18)
        flat = xp.reshape(images, (-1,))
        pixel = self.arange(size)[None, :]
        for pairs in slices_of(first.shape[0], step):
            rows, columns = (pixel - offsets[pairs, k][:, None] for k in (0, 1))
            inside_y, inside_x = ((at >= 0) & (at < size) for at in (rows, columns))
            rows, columns = xp.clip(rows, 0, size - 1), xp.clip(columns, 0, size - 1)
            at = (second[pairs][:, None] * size + rows)[:, :, None] * size + columns[:, None, :]
            other = xp.reshape(xp.take(flat, xp.reshape(at, (-1,)), axis=0), at.shape)
            other = xp.where(inside_y[:, :, None] & inside_x[:, None, :], other, xp.zeros_like(other))
            found.append(xp.sum(xp.take(images, first[pairs], axis=0) * xp.conj(other), axis=(1, 2)))
        return xp.concat(found) if found else self.zeros((0,), "complex64")

    def sparse_product(self, matrix: Sparse) -> Callable[[Array], Array]:
        """A function that multiplies a sparse matrix (scipy, on the host) by (n,) vectors."""
        return lambda vector: self.from_host(matrix @ self.to_host(vector))

    def solve_sparse(self, matrix: Sparse, right: AnyArray) -> AnyArray:
        """Solve a sparse symmetric positive definite system on the host: (n, n) and (n,) float64."""
        factors = splu(
            matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        solution: AnyArray = factors.solve(right)
        return solution

    def out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception means that the device's memory ran out."""
        return False

    def fit(self, compute: Callable[[], ResultT]) -> ResultT:
        """Call a function, and repeat it with smaller operations while the device's memory runs out.

        ``compute`` may be called again, so it must not accumulate anything.

        Raises
        ------
        ResourceError
            If the smallest operations do not fit.
        """
        return retry_smaller(compute, self._halve, self.out_of_memory)

    def _halve(self, error: Exception) -> None:
        if self.batch_values <= _MIN_BATCH_VALUES:
            raise ResourceError(
                f"The memory of {self.name} does not suffice for the object and a few patterns.",
                "Free memory there, or set --accelerator cpu.",
            ) from error
        self.batch_values //= 2
        _log.warning("Memory of %s ran out; continuing with operations on %d numbers.", self.name, self.batch_values)

    def poisson(self, mean: Array, seed: Sequence[int]) -> Array:
        """Poisson counts of a mean, any shape, float32; the same for the same seed, a sequence of integers."""
        drawn = np.random.default_rng(list(seed)).poisson(self.to_host(mean))
        return self.from_host(drawn.astype(np.float32))
