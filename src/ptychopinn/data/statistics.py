"""Statistics of all patterns in one pass, in blocks: one block per core is in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.lazy_rows import LazyRows, release_pages
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.parallel import spread
from ptychopinn.typing import AnyArray, BoolArray, FloatArray, IntArray

_BLOCK_PIXELS = 1 << 18  # 1 MiB of float32: fits a core's cache; larger than the overhead of Python
_RUNS = 16  # runs of blocks, each summed in one thread: more than threads, so that they are busy
_FLOAT32_VALUES = 1024  # values summed in float32, and then in float64; every supported pattern has a multiple of it
_SAMPLE = 64  # patterns that show whether values are whole numbers
MARKS = tuple(float(2**bits - 1) for bits in (8, 15, 16, 24, 31, 32, 63, 64))
"""Largest values of integers, with which detectors and their software mark gaps and dead pixels, in any dtype."""
_ROOTS = tuple(float(np.sqrt(mark)) for mark in MARKS)  # of the same, where amplitudes were stored
_NEVER_COUNTED = 2.0**31 - 1  # and its root where amplitudes are stored: any such value is a mark
_MARK_TOLERANCE = 1e-6  # relative, of float32
_ALL = slice(None)
_SQUARE_TOLERANCE = 4e-7  # relative: a float32 root, squared in float32


@dataclass(frozen=True, eq=False)
class PatternStatistics:
    """Statistics of the values of the patterns, without bad pixels and bad values."""

    # (n,) float64: sum of the values, and of their squares, of each pattern; a bad value counts as the mean of its
    # pixel.
    sums: FloatArray
    square_sums: FloatArray
    mean: FloatArray  # (N, N) float64 mean of the values; 0 at bad pixels and where a value is not finite
    peak: float  # largest value
    whole: bool  # whether all values of 64 evenly spread patterns are whole numbers
    whole_squares: bool  # whether all their squares are whole numbers within float32 precision (roots of counts)
    # (k,) int64: patterns with values that are NaN, infinite or beyond float32, or below 0.
    not_finite: IntArray
    negative: IntArray
    # (N, N) int64: in how many patterns each pixel has such a value.
    not_finite_times: IntArray
    negative_times: IntArray
    negatives: tuple[float, float]  # lowest and highest negative value; (0, 0) without any
    tops: FloatArray  # (N, N) float32: largest value of each pixel
    saturated: int  # number of other values equal to the largest value of the integer dtype
    saturated_in: IntArray  # (k,) int64: patterns with such values


def pattern_statistics(
    patterns: AnyArray | LazyRows, bad_pixels: BoolArray, bad_values: BadValues | None = None
) -> PatternStatistics:
    """Compute the statistics of (n, N, N) patterns of any real dtype, n >= 1; what is bad is ignored."""
    n, size = patterns.shape[0], patterns.shape[1]
    step = max(1, _BLOCK_PIXELS // (size * size))

    def run(starts: IntArray) -> _Tally:
        tally = _Tally(bad_pixels, integer=patterns.dtype.kind in "ui")
        for start in starts.tolist():
            part = slice(start, min(start + step, n))
            tally.add(patterns[part], None if bad_values is None else bad_values.select(np.arange(n)[part]))
            release_pages(patterns)
        return tally

    # The number of cores must not change the sums.
    starts = np.arange(0, n, step)
    runs = spread(run, np.array_split(starts, min(_RUNS, len(starts))))

    def of_patterns(name: str) -> AnyArray:
        return np.concatenate([rows for tally in runs for rows in getattr(tally, name)])

    def of_pixels(name: str, join: Callable[..., Any]) -> AnyArray:
        return np.asarray(join([getattr(tally, name) for tally in runs], axis=0))

    mean = of_pixels("total", np.sum) / (n if bad_values is None else np.maximum(n - bad_values.times, 1))
    # A pixel with the largest value in every pattern is no saturated one.
    saturated = of_patterns("at_largest") - int((of_pixels("largest", np.sum) == n).sum())
    filled, filled_squares = _sums_of_fill(bad_values, mean)
    lows = [tally.negatives for tally in runs if tally.negatives[0] < 0]
    whole, whole_squares = _are_whole(patterns, bad_pixels, bad_values)
    tops = of_pixels("tops", np.max)
    return PatternStatistics(
        sums=of_patterns("sums") + filled,
        square_sums=of_patterns("square_sums") + filled_squares,
        mean=mean,
        peak=float(tops.max()),
        whole=whole,
        whole_squares=whole_squares,
        not_finite=np.flatnonzero(of_patterns("not_finite")),
        negative=np.flatnonzero(of_patterns("negative")),
        not_finite_times=_added(runs, "not_finite", mean.shape),
        negative_times=_added(runs, "negative", mean.shape),
        negatives=(min(low for low, _ in lows), max(high for _, high in lows)) if lows else (0.0, 0.0),
        tops=tops,
        saturated=int(saturated.sum()),
        saturated_in=np.flatnonzero(saturated),
    )


def _added(runs: list[_Tally], kind: str, shape: tuple[int, ...]) -> IntArray:
    """(N, N) int64: how often each pixel has a wrong value of a kind."""
    return sum((tally.times[kind] for tally in runs if kind in tally.times), np.zeros(shape, np.int64))


def _sums_of_fill(bad_values: BadValues | None, mean: FloatArray) -> tuple[FloatArray | float, FloatArray | float]:
    """Sums of the means, and of their squares, that stand for the bad values of each pattern."""
    if bad_values is None:
        return 0.0, 0.0
    rows, pixels = bad_values.entries(slice(None))
    values, count = mean.ravel()[pixels], len(bad_values)
    sums, squares = (np.asarray(np.bincount(rows, each, count), np.float64) for each in (values, values**2))
    return sums, squares


def is_never_counted(values: FloatArray) -> BoolArray:
    """Whether values are beyond what detectors count to."""
    return np.asarray(values >= _NEVER_COUNTED * (1 - _MARK_TOLERANCE))


def holds(values: FloatArray, marks: FloatArray | float) -> BoolArray:
    """Whether values are marks, within float32 precision."""
    found: BoolArray = np.abs(values - marks) <= _MARK_TOLERANCE * marks
    return found


def is_mark(values: FloatArray) -> BoolArray:
    """Whether each value is a mark or the root of one, within float32 precision."""
    found = np.zeros(values.shape, bool)
    for mark in (*MARKS, *_ROOTS):
        found |= holds(values, mark)
    return found


def _are_whole(patterns: AnyArray | LazyRows, bad_pixels: BoolArray, bad_values: BadValues | None) -> tuple[bool, bool]:
    """Whether all values of some patterns are whole numbers, and whether their squares are; what is bad is ignored."""
    if patterns.dtype.kind in "ui":
        return True, True
    whole = whole_squares = True
    for number in evenly_spread(patterns.shape[0], _SAMPLE).tolist():
        part = slice(number, number + 1)
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.asarray(patterns[part]).astype(np.float32)
            if bad_values is not None:
                bad_values.put(values, part, 0)
            values[:, bad_pixels] = 0
            values[~(np.isfinite(values) & (values > 0))] = 0
            whole = whole and bool((np.rint(values) == values).all())
            squares = np.square(values)
            off = np.abs(np.rint(squares) - squares)
            whole_squares = whole_squares and bool((off <= _SQUARE_TOLERANCE * squares).all())
    return whole, whole_squares


class _Tally:
    """Statistics of a run of blocks; lists have one array per block with one number per pattern.

    Parameters
    ----------
    bad_pixels:
        (N, N) bool.
    integer:
        Whether the dtype is an integer.
    """

    def __init__(self, bad_pixels: BoolArray, *, integer: bool) -> None:
        shape = bad_pixels.shape
        self._integer = integer
        self._bad: IntArray = np.flatnonzero(bad_pixels)
        self.sums: list[AnyArray] = []
        self.square_sums: list[AnyArray] = []
        self.not_finite: list[AnyArray] = []
        self.negative: list[AnyArray] = []
        self.at_largest: list[AnyArray] = []
        self.total = np.zeros(shape)
        self.times: dict[str, IntArray] = {}  # how often each pixel has a wrong value, by kind; seldom any
        self.negatives = (0.0, 0.0)
        self.largest = np.zeros(shape, np.int64)  # how often each pixel has the largest value of its integer dtype
        self.tops: FloatArray = np.zeros(shape, np.float32)

    def add(self, raw: AnyArray, bad_values: BadValues | None) -> None:
        """Add a block, (b, N, N), with its bad values."""
        with np.errstate(over="ignore", invalid="ignore"):
            block = self._good(raw, bad_values)
            # The smallest and the largest value are NaN or infinite if any is.
            tops = self._tops(raw, block, bad_values)
            low, high = 0.0 if raw.dtype.kind == "u" else float(block.min()), float(tops.max())
            nowhere = np.zeros(len(raw), np.int64)
            not_finite = negative = nowhere
            if not (np.isfinite(low) and np.isfinite(high)):
                block, not_finite = self._without(block, ~np.isfinite(block), "not_finite")
                low = float(block.min())
            if low < 0:
                self._add_negatives(low, float(block[block < 0].max()))
                block, negative = self._without(block, block < 0, "negative")
            if not_finite is not nowhere:
                tops = block.max(axis=0)
            self.not_finite.append(not_finite)
            self.negative.append(negative)
            is_top = self._integer and high >= np.float32(np.iinfo(raw.dtype).max)
            self.at_largest.append(self._add_largest(raw, bad_values) if is_top else nowhere)
            np.maximum(self.tops, tops, out=self.tops)
            self.total += block.sum(axis=0)
            runs = block.reshape(
                len(block), -1, _FLOAT32_VALUES if block[0].size % _FLOAT32_VALUES == 0 else block.shape[-1]
            )
            self.sums.append(np.einsum("ijk->ij", runs).sum(axis=1, dtype=np.float64))
            self.square_sums.append(np.einsum("ijk,ijk->ij", runs, runs).sum(axis=1, dtype=np.float64))

    def _good(self, raw: AnyArray, bad_values: BadValues | None) -> FloatArray:
        """A block as float32, with 0 where it is bad; it may be the block itself."""
        is_whole = not len(self._bad) and bad_values is None
        block = raw.astype(np.float32, copy=not is_whole)
        if len(self._bad):
            block.reshape(len(block), -1)[:, self._bad] = 0
        if bad_values is not None:
            bad_values.put(block, _ALL, 0)
        return block

    def _tops(self, raw: AnyArray, block: FloatArray, bad_values: BadValues | None) -> FloatArray:
        """(N, N) float32: largest values of the pixels; narrow integers are compared faster than float32."""
        if not self._integer or bad_values is not None:
            return np.asarray(block.max(axis=0))
        tops: FloatArray = raw.max(axis=0).astype(np.float32)
        tops.reshape(-1)[self._bad] = 0
        return tops

    def _add_largest(self, raw: AnyArray, bad_values: BadValues | None) -> IntArray:
        """Count the largest value of the integer dtype by pixel; return the number in each pattern, (b,) int64."""
        at_top = raw == np.iinfo(raw.dtype).max
        at_top.reshape(len(raw), -1)[:, self._bad] = False
        if bad_values is not None:
            bad_values.put(at_top, _ALL, False)
        self.largest += at_top.sum(axis=0)
        return np.asarray(at_top.sum(axis=(1, 2)), np.int64)

    def _add_negatives(self, low: float, high: float) -> None:
        before = self.negatives
        self.negatives = (min(low, before[0]), high if before[0] == 0 else max(high, before[1]))

    def _without(self, block: FloatArray, wrong: BoolArray, kind: str) -> tuple[FloatArray, IntArray]:
        """A copy with 0 for wrong values, counted by pixel; and per pattern whether it has any, (b,) int64."""
        self.times[kind] = self.times.get(kind, 0) + wrong.sum(axis=0)
        return np.where(wrong, np.float32(0), block), np.asarray(wrong.any(axis=(1, 2)), np.int64)
