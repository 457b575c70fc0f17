"""Free positions of the passes: their equations, moves and limits."""

from __future__ import annotations

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.solvers.position_steps import PositionSteps
from ptychopinn.typing import FloatArray

MAX_MOVE_PX = 16
"""Maximum total displacement of a position. The object needs a margin of this many pixels."""
_DAMPING = 0.05  # of the equations, relative to their mean over the scan
_TINY = float(np.finfo(np.float32).tiny)


class FreePositions:
    """Moves positions after a pass, and sets those back that run away.

    Parameters
    ----------
    given:
        (n, 2) float64 (y, x), pixels, in the order of measurement.
    first_step:
        Length of the first step, in Gauss-Newton steps.
    """

    def __init__(self, given: FloatArray, first_step: float) -> None:
        self._given, self._steps = given, PositionSteps(given, first_step)
        self._ran_away = np.zeros(len(given), bool)

    @property
    def runaways(self) -> int:
        """Number of positions that moved by `MAX_MOVE_PX` and were set back to their given values."""
        return int(self._ran_away.sum())

    def move(self, positions: FloatArray, normal: FloatArray, right: FloatArray) -> FloatArray:
        """(n, 2) moved positions from the (n, 2, 2) and (n, 2) equations of all patterns."""
        moved: FloatArray = positions + self._steps.moves(_solve(normal, right))
        away = (np.abs(moved - self._given) >= MAX_MOVE_PX).any(axis=1)
        self._ran_away |= away
        moved[away] = self._given[away]
        return moved


def position_equations(change: Array, probes: Array, patches: Array, library: ArrayLibrary) -> list[Array]:
    """(b, 4) and (b, 2) float64: normal equations of the moves that fit the changes of the exit waves best."""
    xp, size = library.xp, probes.shape[-1]
    frequency = library.frequencies(size)
    slopes_of = 2 * np.pi * xp.where(frequency == -0.5, xp.zeros_like(frequency), frequency)  # Nyquist has no direction
    factor = library.cast(library.complex(xp.zeros_like(slopes_of), slopes_of), "complex64")
    spectrum = library.fft2(xp.asarray(probes, copy=True))
    slopes = []
    for along in (factor[:, None], factor[None, :]):
        slope = library.ifft2(spectrum * along) * patches[:, None, ...]  # minus the derivative by the position
        slopes.append(xp.reshape(slope, (slope.shape[0], -1)))
    slope = xp.stack(slopes, axis=1)  # (b, 2, modes N N)
    flat = xp.reshape(change, (change.shape[0], -1, 1))
    normal = xp.real(library.matmul(slope, xp.conj(xp.matrix_transpose(slope))))
    right = -xp.real(library.matmul(xp.conj(slope), flat))[..., 0]
    return [library.cast(xp.reshape(normal, (-1, 4)), "float64"), library.cast(right, "float64")]


def _solve(normal: FloatArray, right: FloatArray) -> FloatArray:
    """(n, 2) Gauss-Newton steps of the patterns, damped by the mean of all equations."""
    damping = _DAMPING * np.trace(normal.mean(axis=0)) / 2 + _TINY
    moves: FloatArray = np.linalg.solve(normal + damping * np.eye(2), right[..., None])[..., 0]
    return moves
