"""One pass over the patterns, block by block: everything that their values can tell, in the memory of a block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychopinn.data.rows import forget_pages
from ptychopinn.typing import AnyArray, BoolArray, FloatArray, IntArray

_BLOCK_PIXELS = 1 << 18  # 1 MiB of float32: fits a core's cache, and a Python call a block is nothing
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
    integer = patterns.dtype.kind in "ui"
    top = np.iinfo(patterns.dtype).max if integer else None
    any_bad = bool(bad_pixels.any())
    sums, square_sums = np.zeros(n), np.zeros(n)
    total = np.zeros((size, size))
    peak, whole, whole_squares = 0.0, True, True
    not_finite, negative = np.zeros(n, bool), np.zeros(n, bool)
    not_finite_pixels, negative_pixels = np.zeros((size, size), bool), np.zeros((size, size), bool)
    stuck, at_largest = np.full((size, size), integer), np.zeros(n, np.int64)

    step = max(1, _BLOCK_PIXELS // (size * size))
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        raw = patterns[part]
        forget_pages(patterns)  # of the blocks before; this one is read below
        with np.errstate(over="ignore", invalid="ignore"):
            block = raw.astype(np.float32)  # a copy: it is written to below
            if any_bad:
                block[:, bad_pixels] = 0
            low, high = float(block.min()), float(block.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                wrong = ~np.isfinite(block)
                not_finite[part] = wrong.any(axis=(1, 2))
                not_finite_pixels |= wrong.any(axis=0)
                block[wrong] = 0
                low, high = float(block.min()), float(block.max())
            if low < 0:
                wrong = block < 0
                negative[part] = wrong.any(axis=(1, 2))
                negative_pixels |= wrong.any(axis=0)
                block[wrong] = 0
            if top is not None and high >= np.float32(top):
                at_top = (raw == top) & ~bad_pixels
                at_largest[part] = at_top.sum(axis=(1, 2))
                stuck &= at_top.all(axis=0)
            else:
                stuck[:] = False
            peak = max(peak, high)
            sums[part] = block.sum(axis=(1, 2))
            total += block.sum(axis=0)
            squares = np.square(block)
            square_sums[part] = squares.sum(axis=(1, 2))
            whole = whole and (integer or bool((np.rint(block) == block).all()))
            if whole_squares and not integer:
                off = np.abs(np.rint(squares) - squares)
                whole_squares = bool((off <= _SQUARE_TOLERANCE * squares).all())
    saturated = at_largest - int(stuck.sum())
    return Survey(
        sums=sums,
        square_sums=square_sums,
        mean=total / n,
        peak=peak,
        whole=whole,
        whole_squares=whole_squares,
        not_finite=np.flatnonzero(not_finite),
        negative=np.flatnonzero(negative),
        not_finite_pixels=not_finite_pixels,
        negative_pixels=negative_pixels,
        stuck=stuck,
        saturated=int(saturated.sum()),
        saturated_in=np.flatnonzero(saturated),
    )
