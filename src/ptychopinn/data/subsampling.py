"""Fewer patterns of a scan that still lie all over it."""

from __future__ import annotations

import numpy as np

from ptychopinn.typing import FloatArray, IntArray


def thin_positions(positions: FloatArray, spacing: float) -> IntArray:
    """The first position in each square of a grid.

    Parameters
    ----------
    positions:
        (n, 2) float64 (y, x), pixels.
    spacing:
        Side of the squares, pixels, more than 0; the grid begins at the least y and x.

    Returns
    -------
    (k,) int64, ascending indices.
    """
    cells = np.floor((positions - positions.min(axis=0)) / spacing).astype(np.int64)
    _, first = np.unique(cells[:, 0] * (cells[:, 1].max() + 1) + cells[:, 1], return_index=True)
    return np.sort(first)
