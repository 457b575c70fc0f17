"""Step length of position moves, chosen from the effect of the previous moves.

An object reconstructed at wrong positions partly agrees with them, so a pass measures only a fraction ``h`` of each
position error ``e``. The fraction depends on probe, overlap and object. It follows from two passes: moves
``m = s h e`` of step ``s`` reduce the errors, and the next measured moves show by how much. Common motions of all
positions (a scale, a rotation, a drift) are hidden more than individual ones, so they have their own step.

Source of the step: Barzilai & Borwein, IMA J. Numer. Anal. 8, 141 (1988).
"""

from __future__ import annotations

import numpy as np

from ptychopinn.typing import FloatArray

_MAX_GROWTH = 4.0  # maximum change of a step from pass to pass, as a factor
_MAX_STEP_PX = 1.0  # maximum individual move in a pass
_MAX_GLOBAL_STEP_PX = 2.0  # maximum common move in a pass
_MIN_POSITIONS = 24  # fewer do not determine a common motion
_LARGEST_STEP = 1e4


class SecantStep:
    """Step length from the last two moves.

    Attributes
    ----------
    length:
        Length of the next step, as a factor of the measured moves.
    """

    def __init__(self, first: float) -> None:
        self.length = first
        self._last: FloatArray | None = None

    def update(self, moves: FloatArray) -> None:
        """Update the length with new measured moves. Those of the last call were made times ``length``."""
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
    """

    def __init__(self, positions: FloatArray, first: float) -> None:
        self._together = _common_motions(positions)
        self._each, self._all = SecantStep(first), SecantStep(first)

    def moves(self, steps: FloatArray) -> FloatArray:
        """(n, 2) Gauss-Newton steps of a pass to (n, 2) moves, pixels.

        Their mean is 0, because a common shift of object and positions changes no pattern.
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
    """(n, k) orthonormal basis of linear maps and drifts of the positions, with mean 0."""
    count = len(positions)
    if count < _MIN_POSITIONS:
        return np.zeros((count, 0))
    time = np.linspace(-1, 1, count)
    columns = np.column_stack([positions, time, time**2])
    columns = columns - columns.mean(axis=0)
    left, values, _ = np.linalg.svd(columns / np.maximum(columns.std(axis=0), 1e-12), full_matrices=False)
    return np.asarray(left[:, values > 0.05 * values[0]])
