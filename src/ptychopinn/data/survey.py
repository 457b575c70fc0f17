"""One pass over the patterns: everything that their values can tell, in the memory of a block for each core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from ptychopinn.data.rows import forget_pages
from ptychopinn.parallel import spread
from ptychopinn.typing import AnyArray, BoolArray, FloatArray, IntArray

_BLOCK_PIXELS = 1 << 17  # 512 KiB of float32: fits a core's cache, and a Python call a block is nothing
_RUNS = 16  # of blocks that are summed one after another: more than there are threads, and few enough to keep
_SQUARE_TOLERANCE = 4e-7  # relative: a float32 root, squared in float32


@dataclass(frozen=True, eq=False)
class Survey:
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


def survey(patterns: AnyArray, bad_pixels: BoolArray) -> Survey:
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
    starts = np.arange(0, n, step)
    bad = bad_pixels if bad_pixels.any() else None

    def run(of: IntArray) -> _Block:
        found = _survey_block(patterns, slice(of[0], of[0] + step), bad)
        for start in of[1:]:
            found = _joined([found, _survey_block(patterns, slice(start, start + step), bad)])
        return found

    # However many cores there are, the same sums.
    whole = _joined(spread(run, np.array_split(starts, min(_RUNS, len(starts)))))
    saturated = whole.at_largest - int(whole.stuck.sum())
    return Survey(
        sums=whole.sums,
        square_sums=whole.square_sums,
        mean=whole.total / n,
        peak=whole.peak,
        whole=whole.whole,
        whole_squares=whole.whole_squares,
        not_finite=np.flatnonzero(whole.not_finite),
        negative=np.flatnonzero(whole.negative),
        not_finite_pixels=whole.not_finite_pixels,
        negative_pixels=whole.negative_pixels,
        stuck=whole.stuck,
        saturated=int(saturated.sum()),
        saturated_in=np.flatnonzero(saturated),
    )


@dataclass(frozen=True, eq=False)
class _Block:
    """What some patterns hold; a row a pattern, (N, N) a detector pixel."""

    sums: FloatArray
    square_sums: FloatArray
    total: FloatArray
    peak: float
    whole: bool
    whole_squares: bool
    not_finite: BoolArray
    negative: BoolArray
    not_finite_pixels: BoolArray
    negative_pixels: BoolArray
    stuck: BoolArray
    at_largest: IntArray


def _joined(blocks: Sequence[_Block]) -> _Block:
    """What blocks that follow each other hold together."""
    return _Block(
        sums=np.concatenate([block.sums for block in blocks]),
        square_sums=np.concatenate([block.square_sums for block in blocks]),
        total=reduce(np.add, [block.total for block in blocks]),
        peak=max(block.peak for block in blocks),
        whole=all(block.whole for block in blocks),
        whole_squares=all(block.whole_squares for block in blocks),
        not_finite=np.concatenate([block.not_finite for block in blocks]),
        negative=np.concatenate([block.negative for block in blocks]),
        not_finite_pixels=reduce(np.logical_or, [block.not_finite_pixels for block in blocks]),
        negative_pixels=reduce(np.logical_or, [block.negative_pixels for block in blocks]),
        stuck=reduce(np.logical_and, [block.stuck for block in blocks]),
        at_largest=np.concatenate([block.at_largest for block in blocks]),
    )


def _survey_block(patterns: AnyArray, part: slice, bad_pixels: BoolArray | None) -> _Block:
    raw = patterns[part]
    count, shape = len(raw), raw.shape[1:]
    integer = raw.dtype.kind in "ui"
    nowhere: tuple[AnyArray, AnyArray] = np.zeros(count, bool), np.zeros(shape, bool)
    not_finite, not_finite_pixels = nowhere
    negative, negative_pixels = nowhere
    at_largest: AnyArray = np.zeros(count, np.int64)
    stuck: AnyArray = nowhere[1]
    whole, whole_squares = integer, True
    with np.errstate(over="ignore", invalid="ignore"):
        block = raw.astype(np.float32)  # a copy: it is written to below
        forget_pages(patterns)
        if bad_pixels is not None:
            block[:, bad_pixels] = 0
        low, high = float(block.min()), float(block.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            wrong = ~np.isfinite(block)
            not_finite, not_finite_pixels = (np.asarray(wrong.any(axis=axis)) for axis in ((1, 2), 0))
            block[wrong] = 0
            low, high = float(block.min()), float(block.max())
        if low < 0:
            wrong = block < 0
            negative, negative_pixels = (np.asarray(wrong.any(axis=axis)) for axis in ((1, 2), 0))
            block[wrong] = 0
        if integer and high >= np.float32(np.iinfo(raw.dtype).max):
            at_top = raw == np.iinfo(raw.dtype).max
            if bad_pixels is not None:
                at_top &= ~bad_pixels
            at_largest, stuck = at_top.sum(axis=(1, 2)), at_top.all(axis=0)
        squares = np.square(block)
        if not integer:
            whole = bool((np.rint(block) == block).all())
            off = np.abs(np.rint(squares) - squares)
            whole_squares = bool((off <= _SQUARE_TOLERANCE * squares).all())
    return _Block(
        sums=block.sum(axis=(1, 2)).astype(np.float64),
        square_sums=squares.sum(axis=(1, 2)).astype(np.float64),
        total=block.sum(axis=0).astype(np.float64),
        peak=max(high, 0.0),
        whole=whole,
        whole_squares=whole_squares,
        not_finite=not_finite,
        negative=negative,
        not_finite_pixels=not_finite_pixels,
        negative_pixels=negative_pixels,
        stuck=stuck,
        at_largest=at_largest,
    )
