"""Select some of the patterns: in order, all over the scan, or in its middle."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ptychopinn.typing import FloatArray, IntArray


def evenly_spread(count: int, most: int) -> IntArray:
    """At most ``most`` evenly spread integers from 0 to below ``count``, ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def split_every(indices: IntArray, period: int) -> tuple[IntArray, IntArray]:
    """Split (n,) indices: all others, and the middle one of each ``period``."""
    picked = np.arange(len(indices)) % period == period // 2
    return indices[~picked], indices[picked]


def thin_positions(positions: FloatArray, spacing: float) -> IntArray:
    """Select the first of (n, 2) positions (y, x) in each square of a grid: (k,) int64, ascending indices.

    ``spacing`` is the side of the squares, more than 0, in pixels; the grid begins at the least y and x.
    """
    cells = np.floor((positions - positions.min(axis=0)) / spacing).astype(np.int64)
    _, first = np.unique(cells[:, 0] * (cells[:, 1].max() + 1) + cells[:, 1], return_index=True)
    return np.sort(first)


def neighbour_distances(positions: FloatArray) -> FloatArray:
    """Distance of each of (n, 2) finite positions from the nearest other one, (n,) float64; infinite if alone."""
    distances: FloatArray = cKDTree(positions).query(positions, k=2)[0][:, 1]
    return distances


def nearest_to_middle(positions: FloatArray, count: int) -> IntArray:
    """Select the ``count`` positions nearest to the median of (n, 2) positions, or all: ascending int64 indices."""
    distance = ((positions - np.median(positions, axis=0)) ** 2).sum(axis=1)
    return np.sort(np.argsort(distance, kind="stable")[:count])
