"""Marks of gaps in the patterns of a stream: bad pixels if most patterns have them, else bad values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.diagnostics import Findings
from ptychopinn.typing import BoolArray, FloatArray, IntArray


class StreamMarks:
    """Which pixels of which patterns measured nothing.

    Attributes
    ----------
    given:
        (N, N) bool: the bad pixels that the producer names.
    times:
        (N, N) int64: in how many patterns each pixel was bad.
    """

    def __init__(self, size: tuple[int, int], given: BoolArray | None = None) -> None:
        self.given: BoolArray = np.zeros(size, bool) if given is None else given
        self.times: IntArray = np.zeros(size, np.int64)
        self._patterns = 0
        self._slots: list[IntArray] = []
        self._pixels: list[IntArray] = []
        self._joined: BadValues | None = None

    def add(self, count: int, bad_values: BadValues | None) -> Findings:
        """Add the next patterns; the finding names pixels that were not bad before."""
        findings = Findings()
        if bad_values is not None:
            slots, pixels = bad_values.entries(slice(None))
            self._slots.append(slots + self._patterns)
            self._pixels.append(pixels)
            self._joined = None
            new = (self.times == 0) & (bad_values.times > 0)
            self.times += bad_values.times
            if new.any():
                where = tuple(np.argwhere(new)[0].tolist())
                findings.warning(
                    "patterns",
                    f"{int(new.sum())} pixels have a value that marks gaps (the largest of an integer, or its root), "
                    f"such as (y, x) {where}; they are bad in the patterns that have it.",
                    "",
                    "DATA-035",
                )
        self._patterns += count
        return findings

    def bad_pixels(self, count: int) -> BoolArray:
        """(N, N) bool: given ones, and those that are bad in at least half of ``count`` patterns."""
        found: BoolArray = self.given | ((self.times > 0) & (2 * self.times >= count))
        return found

    def bad_values(self, slots: IntArray, fill: FloatArray) -> BadValues | None:
        """The other bad values of the patterns in some slots; ``fill`` (N, N) stands for them."""
        if not self._slots:
            return None
        if self._joined is None or len(self._joined) != self._patterns:
            pairs = np.concatenate(self._slots), np.concatenate(self._pixels)
            self._slots, self._pixels = [pairs[0]], [pairs[1]]
            self._joined = BadValues.of_pairs(*pairs, self._patterns, self.given.shape)
        if self._joined is None:
            return None
        found = self._joined.select(slots).outside(self.bad_pixels(self._patterns))
        return None if found is None else replace(found, fill=fill.astype(np.float32))
