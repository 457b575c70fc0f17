"""How far positions move after a pass: as far as the last moves have shown to pay.

An object that is made of patterns at wrong places agrees with these in part, so each pass sees but a share of what a
position is off. How large this share is depends on probe, overlap and object, and it is measured: where moves
``m = s h e`` take a step ``s`` of a share ``h`` off the errors ``e``, the next ones tell ``h``. What all positions do
together (a scale, a turn, a drift) is hidden better than what each does alone, so it has a step of its own.

Source of the step: Barzilai & Borwein, IMA J. Numer. Anal. 8, 141 (1988).
"""

from __future__ import annotations

import numpy as np

from ptychopinn.typing import FloatArray

_MAX_GROWTH = 4.0  # of a step, from pass to pass
_MAX_STEP_PX = 1.0  # that a position moves in a pass by itself,
_MAX_GLOBAL_STEP_PX = 2.0  # and together with all others
_MIN_POSITIONS = 24  # for a motion of all together to be told from theirs
_LARGEST_STEP = 1e4


class SecantStep:
    """A step that goes as far as the last two moves say.

    Attributes
    ----------
    length:
        Of the next step, in terms of the moves that are given.
    """

    def __init__(self, first: float) -> None:
        self.length = first
        self._last: FloatArray | None = None

    def update(self, moves: FloatArray) -> None:
        """Moves of a step of length 1; those of the last call were taken by ``length``."""
        last = self._last
        if last is not None and (square := float((last * last).sum())) > 0:
            taken = (1 - float((moves * last).sum()) / square) / self.length
            wanted = 1 / taken if taken > 0 else np.inf
            self.length = float(np.clip(wanted, self.length / _MAX_GROWTH, self.length * _MAX_GROWTH))
            self.length = min(self.length, _LARGEST_STEP)
        self._last = moves


class PositionSteps:
    """Moves of the positions of a scan, from pass to pass.

    Parameters
    ----------
    positions:
        (n, 2) float64 (y, x), pixels, in the order of measurement.
    first:
        Length of the first step.
    """

    def __init__(self, positions: FloatArray, first: float) -> None:
        self._together = _common_motions(positions)
        self._each, self._all = SecantStep(first), SecantStep(first)

    def moves(self, steps: FloatArray) -> FloatArray:
        """(n, 2) steps of length 1, as the patterns of a pass say, to (n, 2) moves, pixels.

        Their mean is 0: object and positions may move together without any pattern changing.
        """
        steps = steps - steps.mean(axis=0)
        together: FloatArray = self._together @ (self._together.T @ steps)
        alone = steps - together
        self._each.update(alone)
        self._all.update(together)
        each = np.clip(self._each.length * alone, -_MAX_STEP_PX, _MAX_STEP_PX)
        common = self._all.length * together
        largest = float(np.abs(common).max(initial=0.0))
        moves: FloatArray = each + common * min(1.0, _MAX_GLOBAL_STEP_PX / max(largest, 1e-12))
        return moves


def _common_motions(positions: FloatArray) -> FloatArray:
    """(n, k) orthonormal: what a linear map and a drift do to positions, less their means."""
    count = len(positions)
    if count < _MIN_POSITIONS:
        return np.zeros((count, 0))
    time = np.linspace(-1, 1, count)
    columns = np.column_stack([positions, time, time**2])
    columns = columns - columns.mean(axis=0)
    left, values, _ = np.linalg.svd(columns / np.maximum(columns.std(axis=0), 1e-12), full_matrices=False)
    return np.asarray(left[:, values > 0.05 * values[0]])
