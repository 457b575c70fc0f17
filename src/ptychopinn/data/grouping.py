"""Groups of neighbouring patterns, whose overlap acts together in the loss."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ConfigError
from ptychopinn.typing import FloatArray, IntArray

_NO_MEMBER = -1
_CHUNK = 1 << 16  # anchors or patterns processed at a time


def default_neighbour_count(group_size: int, n: int) -> int:
    """Default number of neighbours from which a group is drawn: 1.5 (group_size - 1), at most n - 1."""
    needed = group_size - 1
    return max(min(needed + (needed + 1) // 2, n - 1), 0)


def default_group_count(n: int, group_size: int) -> int:
    """Default number of groups per epoch: enough to use every pattern once."""
    return max(-(-n // group_size), 1)


def members_by_scan(scan_index: IntArray) -> list[IntArray]:
    """Indices of the patterns of each scan: (n,) scan numbers to a list of ascending (k,) indices, by scan number."""
    if len(scan_index) == 0:
        return []
    order = np.argsort(scan_index, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(scan_index[order])) + 1)


def neighbours(positions: FloatArray, scan_index: IntArray, count: int) -> IntArray:
    """Nearest neighbours of each pattern in the same scan, without itself.

    (n, 2) float64 positions (y, x), which may repeat, and (n,) scan numbers to (n, count) int64, nearest first; -1 if a
    scan has fewer.
    """
    table = np.full((len(positions), count), _NO_MEMBER, np.int64)
    if count == 0:
        return table
    for members in members_by_scan(scan_index):
        near = min(count, len(members) - 1)
        if near == 0:
            continue
        tree = cKDTree(positions[members])
        for start in range(0, len(members), _CHUNK):
            own = np.arange(start, min(start + _CHUNK, len(members)))
            _, found = tree.query(positions[members[own]], k=near + 1)
            # If many patterns share one position, a pattern may not be among its own nearest: then drop the last.
            drop = found == own[:, None]
            drop[~drop.any(axis=1), -1] = True
            table[members[own], :near] = members[found[~drop].reshape(len(own), near)]
    return table


def check_groups(data: ScanDataset, group_size: int, neighbor_count: int | None = None) -> int:
    """Check that groups can be drawn; parameters and errors are those of `neighbour_table`.

    Returns
    -------
    Patterns in the largest scan of the dataset.
    """
    if group_size < 1:
        raise ConfigError(f"group_size is {group_size}; a group has at least its anchor.", "Give 1 or more.")
    if neighbor_count is not None and neighbor_count < group_size - 1:
        raise ConfigError(
            f"neighbor_count is {neighbor_count}; a group of {group_size} needs {group_size - 1} beside its anchor.",
            f"Raise neighbor_count to {group_size - 1} or more, or lower group_size.",
        )
    largest = int(np.unique(data.scan_index, return_counts=True)[1].max()) if len(data) else 0
    if largest < group_size:
        raise ConfigError(
            f"A group has {group_size} patterns, but the largest scan has {largest}.",
            f"Set group_size to {largest} or less, or give more patterns." if largest else "Give a scan with patterns.",
        )
    return largest


def neighbour_table(data: ScanDataset, group_size: int, neighbor_count: int | None = None) -> IntArray:
    """The `neighbours` of a scan for groups of ``group_size`` patterns.

    Parameters
    ----------
    neighbor_count:
        Neighbours from which a group is drawn, without the anchor; None: `default_neighbour_count`.

    Returns
    -------
    (n, neighbor_count) int64; -1 if a scan has fewer.

    Raises
    ------
    ConfigError
        If ``neighbor_count`` does not reach ``group_size - 1``, or no scan has ``group_size`` patterns.
    """
    largest = check_groups(data, group_size, neighbor_count)
    count = default_neighbour_count(group_size, largest) if neighbor_count is None else neighbor_count
    return neighbours(data.positions, data.scan_index, count)


def draw_groups(
    neighbour_table: IntArray,
    group_size: int,
    n_groups: int,
    rng: np.random.Generator,
    sequential: bool = False,
) -> IntArray:
    """Draw groups of an anchor and some of its neighbours.

    Parameters
    ----------
    neighbour_table:
        (n, count) int64 of `neighbours`, n >= 1.
    group_size:
        Patterns in a group; count must reach ``group_size - 1``.
    n_groups:
        Groups to draw. Each round of n groups has every pattern as an anchor once.
    sequential:
        Take anchors in scan order; neighbours are still drawn.

    Returns
    -------
    (n_groups, group_size) int64: the anchor, then distinct neighbours; -1 at the end if there are too few.

    Raises
    ------
    ConfigError
        If the table is too small for the group.
    """
    n, count = neighbour_table.shape
    if n == 0:
        raise ConfigError("There are no patterns to draw groups from.", "Give a scan with patterns.")
    if count < group_size - 1:
        raise ConfigError(
            f"Groups of {group_size} cannot be drawn from {count} neighbours.",
            f"Set neighbor_count to {group_size - 1} or more.",
        )
    if sequential:
        anchors = np.arange(n_groups, dtype=np.int64) % n
    else:
        rounds = [rng.permutation(n) for _ in range(-(-n_groups // n))]
        anchors = np.concatenate(rounds)[:n_groups] if rounds else np.zeros(0, np.int64)
    groups = np.empty((n_groups, group_size), np.int64)
    groups[:, 0] = anchors
    for start in range(0, n_groups, _CHUNK):
        near = neighbour_table[anchors[start : start + _CHUNK]]
        lots = rng.random(near.shape)
        lots[near == _NO_MEMBER] = 2.0  # after all others
        chosen = np.argsort(lots, axis=1, kind="stable")[:, : group_size - 1]
        groups[start : start + _CHUNK, 1:] = np.take_along_axis(near, chosen, axis=1)
    return groups


def subsample(n: int, n_subsample: int | None, seed: int, sequential: bool = False) -> IntArray:
    """Choose ``n_subsample`` of n patterns at random, or the first ones if ``sequential``; None: all.

    Returns
    -------
    (n_subsample,) int64, sorted, distinct.

    Raises
    ------
    ConfigError
        If there are fewer than ``n_subsample`` patterns, or it is not positive.
    """
    if n_subsample is None:
        return np.arange(n, dtype=np.int64)
    if not 1 <= n_subsample <= n:
        raise ConfigError(
            f"n_subsample is {n_subsample}; the scan has {n} patterns.", f"Give a number between 1 and {n}, or none."
        )
    if sequential:
        return np.arange(n_subsample, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(n, n_subsample, replace=False)).astype(np.int64)
