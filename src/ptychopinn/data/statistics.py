"""Statistics of all patterns in one pass, in blocks: one block per core is in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptychopinn.data.lazy_rows import LazyRows, release_pages
from ptychopinn.parallel import spread
from ptychopinn.typing import AnyArray, BoolArray, FloatArray, IntArray

_BLOCK_PIXELS = 1 << 18  # 1 MiB of float32: fits a core's cache; larger than the overhead of Python
_RUNS = 16  # runs of blocks, each summed in one thread: more than threads, so that they are busy
MARKS = tuple(float(2**bits - 1) for bits in (8, 15, 16, 24, 31, 32, 63, 64))
"""Largest values of integers, with which detectors and their software mark gaps and dead pixels, in any dtype."""
_ROOTS = tuple(float(np.sqrt(mark)) for mark in MARKS)  # of the same, where amplitudes were stored
_NEVER_COUNTED = 2.0**31 - 1  # and its root where amplitudes are stored: any such value is a mark
_FAR_LOWER = 1 / 16  # of the mark: mean of the other values of a pixel that is no saturated one
_MARK_TOLERANCE = 1e-6  # relative, of float32
_SQUARE_TOLERANCE = 4e-7  # relative: a float32 root, squared in float32


@dataclass(frozen=True, eq=False)
class PatternStatistics:
    """Statistics of the values of the patterns, without bad pixels.

    Attributes
    ----------
    sums, square_sums:
        (n,) float64: sum of the values, and of their squares, of each pattern.
    mean:
        (N, N) float64 mean of the values; 0 at bad pixels and where a value is not finite.
    peak:
        Largest value.
    whole:
        Whether all values are whole numbers.
    whole_squares:
        Whether all squares are whole numbers within float32 precision (roots of counts).
    not_finite, negative:
        (k,) int64: patterns with values that are NaN, infinite or beyond float32, or below 0.
    not_finite_pixels, negative_pixels:
        (N, N) bool: pixels with such values.
    stuck:
        (N, N) bool: pixels that hold a value which marks what was not measured (`MARKS`): in every pattern, or in some
        while their other values are far lower, or one that no detector counts to.
    saturated:
        Number of other values equal to the largest value of the integer dtype.
    saturated_in:
        (k,) int64: patterns with such values.
    """

    sums: FloatArray
    square_sums: FloatArray
    mean: FloatArray
    peak: float
    whole: bool
    whole_squares: bool
    not_finite: IntArray
    negative: IntArray
    not_finite_pixels: BoolArray
    negative_pixels: BoolArray
    stuck: BoolArray
    saturated: int
    saturated_in: IntArray


def pattern_statistics(patterns: AnyArray | LazyRows, bad_pixels: BoolArray) -> PatternStatistics:
    """Compute the statistics of (n, N, N) patterns of any real dtype, n >= 1; values at bad pixels are ignored."""
    n, size = patterns.shape[0], patterns.shape[1]
    step = max(1, _BLOCK_PIXELS // (size * size))
    bad = bad_pixels if bad_pixels.any() else None

    def run(starts: IntArray) -> _Tally:
        tally = _Tally(patterns.shape[1:], integer=patterns.dtype.kind in "ui")
        for start in starts.tolist():
            tally.add(patterns[start : start + step], bad)
            release_pages(patterns)
        return tally

    # The number of cores must not change the sums.
    starts = np.arange(0, n, step)
    runs = spread(run, np.array_split(starts, min(_RUNS, len(starts))))

    def of_patterns(name: str) -> AnyArray:
        return np.concatenate([rows for tally in runs for rows in getattr(tally, name)])

    def of_pixels(name: str, join: Callable[..., Any]) -> AnyArray:
        return np.asarray(join([getattr(tally, name) for tally in runs], axis=0))

    mean = of_pixels("total", np.sum) / n
    own = np.iinfo(patterns.dtype).max if patterns.dtype.kind in "ui" else None
    stuck = _marked(runs, mean, n, own)
    largest = of_pixels("largest", np.sum)
    saturated = of_patterns("at_largest") - int((stuck & (largest == n)).sum())
    return PatternStatistics(
        sums=of_patterns("sums").astype(np.float64),
        square_sums=of_patterns("square_sums").astype(np.float64),
        mean=mean,
        peak=max(tally.peak for tally in runs),
        whole=all(tally.whole for tally in runs),
        whole_squares=all(tally.whole_squares for tally in runs),
        not_finite=np.flatnonzero(of_patterns("not_finite")),
        negative=np.flatnonzero(of_patterns("negative")),
        not_finite_pixels=of_pixels("not_finite_pixels", np.any),
        negative_pixels=of_pixels("negative_pixels", np.any),
        stuck=stuck,
        saturated=int(saturated.sum()),
        saturated_in=np.flatnonzero(saturated),
    )


def _marked(runs: list[_Tally], mean: FloatArray, n: int, own: int | None) -> BoolArray:
    """Pixels with marks; see `PatternStatistics.stuck`. ``own`` is the largest value of an integer dtype."""
    marked = np.zeros(mean.shape, bool)
    for mark in {mark for tally in runs for mark in tally.marks}:
        hits = np.sum([tally.marks[mark] for tally in runs if mark in tally.marks], axis=0)
        others = np.divide(mean * n - hits * mark, n - hits, out=np.zeros(mean.shape), where=hits < n)
        # The largest value of the own dtype, now and then, is saturation.
        far = (others < _FAR_LOWER * mark) & (mark != own)
        marked |= (hits > 0) & (far | (hits == n) | _is_never_counted(mark))
    return marked


def _is_never_counted(mark: float) -> bool:
    return mark >= _NEVER_COUNTED * (1 - _MARK_TOLERANCE)


def is_mark(values: FloatArray) -> BoolArray:
    """Whether each value is a mark or the root of one, within float32 precision."""
    found = np.zeros(values.shape, bool)
    for mark in (*MARKS, *_ROOTS):
        found |= np.abs(values - mark) <= _MARK_TOLERANCE * mark
    return found


def _mark_at(value: float) -> float | None:
    """The mark or root of a mark that a value is, within float32 precision."""
    for mark in (*MARKS, *_ROOTS):
        if abs(value - mark) <= _MARK_TOLERANCE * mark:
            return mark
    return None


class _Tally:
    """Statistics of a run of blocks; lists have one array per block with one number per pattern.

    Parameters
    ----------
    shape:
        (N, N).
    integer:
        Whether the dtype is an integer.
    """

    def __init__(self, shape: tuple[int, ...], *, integer: bool) -> None:
        self._integer = integer
        self.sums: list[AnyArray] = []
        self.square_sums: list[AnyArray] = []
        self.not_finite: list[AnyArray] = []
        self.negative: list[AnyArray] = []
        self.at_largest: list[AnyArray] = []
        self.total = np.zeros(shape)
        self.not_finite_pixels, self.negative_pixels = np.zeros(shape, bool), np.zeros(shape, bool)
        self.largest = np.zeros(shape, np.int64)  # how often each pixel has the largest value of its integer dtype
        self.marks: dict[float, IntArray] = {}  # how often each pixel has a mark that is the largest value of a block
        self.peak, self.whole, self.whole_squares = 0.0, True, True

    def add(self, raw: AnyArray, bad_pixels: BoolArray | None) -> None:
        """Add a block, (b, N, N)."""
        with np.errstate(over="ignore", invalid="ignore"):
            block = raw.astype(np.float32)  # a copy, because it is changed below
            if bad_pixels is not None:
                block[:, bad_pixels] = 0
            low, high = float(block.min()), float(block.max())
            nowhere = np.zeros(len(raw), np.int64)
            finite = bool(np.isfinite(low) and np.isfinite(high))
            wrong = nowhere if finite else self._take_out(block, ~np.isfinite(block), "not_finite_pixels")
            self.not_finite.append(wrong)
            low, high = (low, high) if finite else (float(block.min()), float(block.max()))
            self.negative.append(nowhere if low >= 0 else self._take_out(block, block < 0, "negative_pixels"))
            self.at_largest.append(nowhere)
            if self._integer and high >= np.float32(np.iinfo(raw.dtype).max):
                at_top = raw == np.iinfo(raw.dtype).max
                if bad_pixels is not None:
                    at_top &= ~bad_pixels
                self.at_largest[-1] = at_top.sum(axis=(1, 2))
                self.largest += at_top.sum(axis=0)
            if (mark := _mark_at(high)) is not None:
                hits = self.marks.setdefault(mark, np.zeros(block.shape[1:], np.int64))
                hits += (block >= mark * (1 - _MARK_TOLERANCE)).sum(axis=0)
            self.peak = max(self.peak, high)
            self.sums.append(block.sum(axis=(1, 2)))
            self.total += block.sum(axis=0)
            if not self._integer:
                self.whole = self.whole and bool((np.rint(block) == block).all())
            squares = np.square(block)
            self.square_sums.append(squares.sum(axis=(1, 2)))
            if not self._integer and self.whole_squares:
                off = np.rint(squares, out=block)  # in place: several threads hold a block each
                off -= squares
                squares *= np.float32(_SQUARE_TOLERANCE)
                self.whole_squares = bool((np.abs(off, out=off) <= squares).all())

    def _take_out(self, block: AnyArray, wrong: BoolArray, pixels: str) -> AnyArray:
        """Set wrong values to zero and note their pixels; return per pattern whether it has any, (b,) int64."""
        getattr(self, pixels)[wrong.any(axis=0)] = True
        block[wrong] = 0
        return np.asarray(wrong.any(axis=(1, 2)), np.int64)
