"""Sums over the batches of a pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.solvers.gradients import Gradients
from ptychopinn.typing import FloatArray, IntArray


class Tally:
    """What the patterns of a pass add up to.

    Parameters
    ----------
    members:
        Numbers of the patterns of each batch.

    Attributes
    ----------
    background:
        (2, N, N), sum of `background_sums`; 0 if the background is not free.
    """

    def __init__(self, members: Sequence[IntArray]) -> None:
        self._members = members
        self._figures: list[Array] = []
        self._error: Array = 0.0
        self._energy: Array = 0.0
        self.background: Array = 0.0

    def add(self, parts: Sequence[Gradients], library: ArrayLibrary) -> None:
        """Add a batch."""
        for part in parts:
            self._error, self._energy = self._error + part.error, self._energy + part.energy
            if part.figures is not None:
                self._figures.append(library.xp.asarray(part.figures, copy=True))  # the next step may overwrite it
            if part.background is not None:
                self.background = self.background + part.background

    def figures_in_order(self, library: ArrayLibrary) -> FloatArray:
        """(n, k) figures of all batches, read from the device once, in the order of the used patterns."""
        if not self._figures:
            return np.zeros((0, 0))
        joined = library.to_host(library.xp.concat(self._figures))
        ordered = np.empty_like(joined)
        ordered[np.concatenate(self._members)] = joined
        return ordered

    def residual(self, library: ArrayLibrary) -> float:
        """``sqrt(sum (A - A_model)^2 / sum A^2)``, each pattern evaluated just before its update; 0 without light."""
        error, total = library.to_host(library.xp.stack([self._error, self._energy])).tolist()
        return math.sqrt(error / total) if total > 0 else 0.0
