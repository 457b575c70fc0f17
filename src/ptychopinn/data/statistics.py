"""One pass over the patterns: everything that their values can tell, in the memory of a block for each core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptychopinn.data.lazy_rows import release_pages
from ptychopinn.parallel import spread
from ptychopinn.typing import AnyArray, BoolArray, FloatArray, IntArray

_BLOCK_PIXELS = 1 << 18  # 1 MiB of float32: fits a core's cache, and a Python call a block is nothing
_RUNS = 16  # of blocks that are summed one after another: more than there are threads, and few enough to keep
_SQUARE_TOLERANCE = 4e-7  # relative: a float32 root, squared in float32


@dataclass(frozen=True, eq=False)
class PatternStatistics:
    """What the values of the patterns are; bad pixels are left out everywhere.

    Attributes
    ----------
    sums, square_sums:
        (n,) float64: sum of the values, and of their squares, of each pattern.
    mean:
        (N, N) float64 mean of the values; 0 at bad pixels and where a value is no number.
    peak:
        Largest value.
    whole:
        Every value is a whole number.
    whole_squares:
        Every square is a whole number, as far as float32 can tell: roots of counts.
    not_finite, negative:
        (k,) int64: patterns with values that are NaN, infinite or beyond float32, or below 0.
    not_finite_pixels, negative_pixels:
        (N, N) bool: where those values lie.
    stuck:
        (N, N) bool: at the largest value that the integer dtype can hold in every pattern: a gap or a dead pixel.
    saturated:
        Values at that largest value, stuck pixels left out.
    saturated_in:
        (k,) int64: patterns that have such values.
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


def pattern_statistics(patterns: AnyArray, bad_pixels: BoolArray) -> PatternStatistics:
    """Look at every value once.

    Parameters
    ----------
    patterns:
        (n, N, N) of any real dtype, n >= 1; may be memory-mapped.
    bad_pixels:
        (N, N) bool; what stands there does not matter, not even a NaN.
    """
    n, size = patterns.shape[0], patterns.shape[1]
    step = max(1, _BLOCK_PIXELS // (size * size))
    bad = bad_pixels if bad_pixels.any() else None

    def run(starts: IntArray) -> _Tally:
        tally = _Tally(patterns.shape[1:], integer=patterns.dtype.kind in "ui")
        for start in starts.tolist():
            tally.add(patterns[start : start + step], bad)
            release_pages(patterns)
        return tally

    # However many cores there are, the same sums.
    starts = np.arange(0, n, step)
    runs = spread(run, np.array_split(starts, min(_RUNS, len(starts))))

    def of_patterns(name: str) -> AnyArray:
        return np.concatenate([rows for tally in runs for rows in getattr(tally, name)])

    def of_pixels(name: str, join: Callable[..., Any]) -> AnyArray:
        return np.asarray(join([getattr(tally, name) for tally in runs], axis=0))

    stuck = of_pixels("stuck", np.all)
    saturated = of_patterns("at_largest") - int(stuck.sum())
    return PatternStatistics(
        sums=of_patterns("sums").astype(np.float64),
        square_sums=of_patterns("square_sums").astype(np.float64),
        mean=of_pixels("total", np.sum) / n,
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


class _Tally:
    """What the blocks of a run hold together; lists have an array a block, a number a pattern.

    Parameters
    ----------
    shape:
        (N, N).
    integer:
        Whether patterns are whole numbers by their dtype.
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
        self.stuck = np.full(shape, integer)
        self.peak, self.whole, self.whole_squares = 0.0, True, True

    def add(self, raw: AnyArray, bad_pixels: BoolArray | None) -> None:
        """Look at a block, (b, N, N)."""
        with np.errstate(over="ignore", invalid="ignore"):
            block = raw.astype(np.float32)  # a copy: it is written to below
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
                self.stuck &= at_top.all(axis=0)
            else:
                self.stuck[:] = False
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
        """Set what is wrong to zero and note its pixels; returns in which patterns there is any, (b,) int64."""
        getattr(self, pixels)[wrong.any(axis=0)] = True
        block[wrong] = 0
        return np.asarray(wrong.any(axis=(1, 2)), np.int64)
