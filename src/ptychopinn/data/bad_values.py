"""Pixels that measured nothing in some patterns only: which pixels of which pattern."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray, BoolArray, FloatArray, IntArray

OFFSETS_KEY, PIXELS_KEY, MASKS_KEY = "bad_value_offsets", "bad_value_pixels", "bad_values"
"""Names in scan files: the two arrays of `BadValues`, or (n, H, W) masks."""
_BLOCK_PIXELS = 1 << 22  # of masks in memory at a time


@dataclass(frozen=True, eq=False)
class BadValues:
    """The bad pixels of each of n patterns, beside those that are bad in all.

    Raises
    ------
    DataError
        If the arrays contradict each other.
    """

    offsets: IntArray  # (n + 1,) int64: pattern j has the pixels from offsets[j] to offsets[j + 1]
    pixels: IntArray  # (k,) int32: numbers of pixels, row by row
    size: tuple[int, int]  # (H, W) of a pattern
    # (H, W) float32, in the unit of the patterns: what stands for a bad value where sums or a network need one. None
    # before it is known.
    fill: FloatArray | None = None

    def __post_init__(self) -> None:
        offsets, pixels = np.asarray(self.offsets), np.asarray(self.pixels)
        if offsets.ndim != 1 or pixels.ndim != 1 or any(a.dtype.kind not in "iu" for a in (offsets, pixels)):
            raise DataError(
                f"The bad values of patterns are given by {offsets.dtype} offsets of shape {offsets.shape} and "
                f"{pixels.dtype} pixels of shape {pixels.shape}.",
                "Give whole numbers, (n + 1,) offsets and (k,) pixels.",
            )
        if not len(offsets) or offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any() or offsets[-1] != len(pixels):
            raise DataError(
                "The offsets of bad values do not rise from 0 to the number of their pixels.",
                f"Give the first of the {len(pixels)} pixels of each pattern, and their number at the end.",
            )
        if len(pixels) and not 0 <= int(pixels.min()) <= int(pixels.max()) < self.size[0] * self.size[1]:
            raise DataError(
                f"Bad values have pixels from {pixels.min()} to {pixels.max()}; patterns are {self.size}.",
                "Number the pixels of a pattern row by row, from 0.",
            )
        object.__setattr__(self, "offsets", offsets.astype(np.int64, copy=False))
        object.__setattr__(self, "pixels", pixels.astype(np.int32, copy=False))

    @classmethod
    def of_pairs(cls, patterns: IntArray, pixels: IntArray, count: int, size: tuple[int, int]) -> BadValues | None:
        """From (k,) numbers of patterns and pixels, in any order; None without any."""
        if not len(patterns):
            return None
        area = size[0] * size[1]
        rows, pixels = np.divmod(np.unique(patterns.astype(np.int64) * area + pixels), area)
        return cls(np.searchsorted(rows, np.arange(count + 1)), pixels, size)

    @classmethod
    def of_masks(cls, masks: AnyArray, is_bad: Callable[[AnyArray], BoolArray] | None = None) -> BadValues | None:
        """From (n, H, W) masks, of which ``is_bad`` makes bool block by block (without it, what is not 0 is bad).

        None if nothing is bad.
        """
        is_bad = is_bad or _is_not_zero
        count, height, width = masks.shape
        rows, pixels = [], []
        for part in _blocks(count, height * width):
            row, pixel = np.nonzero(is_bad(masks[part]).reshape(-1, height * width))
            rows.append(row + part.start)
            pixels.append(pixel)
        return cls.of_pairs(np.concatenate(rows), np.concatenate(pixels), count, (height, width))

    def __len__(self) -> int:
        """Number of patterns."""
        return len(self.offsets) - 1

    @property
    def patterns_with_any(self) -> IntArray:
        """(k,) int64: numbers of the patterns that have bad values."""
        return np.flatnonzero(np.diff(self.offsets))

    @property
    def times(self) -> IntArray:
        """(H, W) int64: in how many patterns each pixel is bad."""
        return np.bincount(self.pixels, minlength=self.size[0] * self.size[1]).reshape(self.size)

    def entries(self, indices: IntArray | slice) -> tuple[IntArray, IntArray]:
        """Bad values of some patterns: their places among ``indices``, and their pixels, both (k,)."""
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(len(self)))
        starts = self.offsets[indices]
        counts = self.offsets[np.asarray(indices) + 1] - starts
        rows = np.repeat(np.arange(len(counts)), counts)
        return rows, self.pixels[np.arange(len(rows)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)]

    def put(self, block: AnyArray, indices: IntArray | slice, values: Callable[[AnyArray], AnyArray] | float) -> None:
        """Set the bad values of a block (b, H, W) of the patterns ``indices``, or change them by a function."""
        rows, pixels = self.entries(indices)
        flat = block.reshape(len(block), -1)
        flat[rows, pixels] = values(flat[rows, pixels]) if callable(values) else values

    def put_fill(self, block: AnyArray, indices: IntArray | slice) -> None:
        """Set the bad values of a block (b, H, W) to `fill`, or to 0 before it is known."""
        rows, pixels = self.entries(indices)
        block.reshape(len(block), -1)[rows, pixels] = 0 if self.fill is None else self.fill.ravel()[pixels]

    def masks(self, indices: IntArray | slice) -> BoolArray:
        """(b, H, W) bool of some patterns."""
        count = len(np.arange(len(self))[indices])
        found = np.zeros((count, *self.size), bool)
        self.put(found, indices, True)
        return found

    def select(self, indices: IntArray) -> BadValues:
        """Those of the patterns ``indices``, in this order."""
        _, pixels = self.entries(indices)
        counts = np.diff(self.offsets)[indices]
        return replace(self, offsets=np.concatenate([[0], np.cumsum(counts)]), pixels=pixels)

    def outside(self, bad_pixels: BoolArray) -> BadValues | None:
        """Those that are not at pixels that are bad in all patterns; None if there are none."""
        rows, pixels = self.entries(slice(None))
        stays = ~bad_pixels.ravel()[pixels]
        found = self.of_pairs(rows[stays], pixels[stays], len(self), self.size)
        return None if found is None else replace(found, fill=self.fill)

    def changed(self, change: Callable[[AnyArray], AnyArray], size: tuple[int, int]) -> BadValues | None:
        """Masks changed by a function of (b, H, W) to (b, h, w), block by block."""
        rows, pixels = [], []
        for part in _blocks(len(self), self.size[0] * self.size[1]):
            row, pixel = np.nonzero(change(self.masks(part)).reshape(-1, size[0] * size[1]))
            rows.append(row + part.start)
            pixels.append(pixel)
        return self.of_pairs(np.concatenate(rows), np.concatenate(pixels), len(self), size)


@dataclass(frozen=True, eq=False)
class Unmeasured:
    """What patterns did not measure."""

    pixels: BoolArray  # (H, W): in no pattern
    values: BadValues | None = None  # in some

    @classmethod
    def of_masks(cls, masks: AnyArray, is_bad: Callable[[AnyArray], BoolArray] | None = None) -> Unmeasured:
        """From masks as in `BadValues.of_masks`."""
        is_bad = is_bad or _is_not_zero
        every = np.ones(masks.shape[1:], bool)
        for part in _blocks(len(masks), masks.shape[1] * masks.shape[2]):
            every &= is_bad(masks[part]).all(axis=0)
        values = BadValues.of_masks(masks, lambda block: is_bad(block) & ~every)
        return cls(every, values)


def join_bad_values(parts: Sequence[tuple[int, BadValues | None]], size: tuple[int, int]) -> BadValues | None:
    """Bad values of scans one after the other, each given with its number of patterns; None if there are none."""
    rows, pixels, start = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for count, bad in parts:
        if bad is not None:
            row, pixel = bad.entries(slice(None))
            rows.append(row + start)
            pixels.append(pixel)
        start += count
    return BadValues.of_pairs(np.concatenate(rows), np.concatenate(pixels), start, size)


def unite(one: BadValues | None, other: BadValues | None) -> BadValues | None:
    """Values of the same patterns that are bad in either; None if there are none."""
    if one is None or other is None:
        return other if one is None else one
    (rows, pixels), (more, others) = (each.entries(slice(None)) for each in (one, other))
    return BadValues.of_pairs(np.concatenate([rows, more]), np.concatenate([pixels, others]), len(one), one.size)


def _is_not_zero(masks: AnyArray) -> BoolArray:
    return np.asarray(masks != 0)


def _blocks(count: int, area: int) -> list[slice]:
    step = max(1, _BLOCK_PIXELS // area)
    return [slice(low, min(low + step, count)) for low in range(0, max(count, 1), step)]
