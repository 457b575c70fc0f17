"""Groups of neighbours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.grouping import (
    default_group_count,
    default_neighbour_count,
    draw_groups,
    members_by_scan,
    neighbour_table,
    neighbours,
    subsample,
)
from ptychopinn.errors import ConfigError


def scan(n, scans=1, seed=0, repeated=False):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 50, (n, 2))
    if repeated:
        positions = np.round(positions / 25) * 25  # many share a place
    return positions, rng.integers(0, scans, n)


scans = st.builds(scan, st.integers(1, 60), st.integers(1, 4), st.integers(0, 10_000), st.booleans())


def dataset(positions, scan_index=None):
    n = len(positions)
    return ScanDataset(
        np.ones((n, 4, 4)), Measurement.COUNTS, positions, np.ones((1, 4, 4), complex), scan_index=scan_index
    )


@given(st.lists(st.integers(-3, 3), max_size=30))
def test_members_of_each_scan(index):
    """[DATA-100]"""
    index = np.array(index, np.int64)
    found = members_by_scan(index)
    assert [part.tolist() for part in found] == [np.flatnonzero(index == v).tolist() for v in np.unique(index)]


@settings(max_examples=60, deadline=None)
@given(scans, st.integers(0, 12))
def test_neighbours_are_the_nearest_of_the_same_scan(made, count):
    """[DATA-100] Against all distances."""
    positions, index = made
    table = neighbours(positions, index, count)
    assert table.shape == (len(positions), count)
    assert table.dtype == np.int64
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    for j, row in enumerate(table):
        near = row[row >= 0]
        others = np.flatnonzero((index == index[j]) & (np.arange(len(index)) != j))
        assert len(near) == min(count, len(others))
        assert (row[len(near) :] == -1).all()
        assert len(set(near)) == len(near)
        assert set(near) <= set(others)
        assert j not in near
        np.testing.assert_allclose(distances[j, near], np.sort(distances[j, others])[: len(near)])


@settings(max_examples=60, deadline=None)
@given(scans, st.integers(1, 9), st.integers(0, 5), st.integers(0, 150), st.integers(0, 99), st.booleans())
def test_groups_are_anchors_with_distinct_neighbours(made, group_size, spare, n_groups, seed, sequential):
    """[DATA-101]"""
    positions, index = made
    n = len(positions)
    table = neighbours(positions, index, group_size - 1 + spare)
    groups = draw_groups(table, group_size, n_groups, np.random.default_rng(seed), sequential)
    assert groups.shape == (n_groups, group_size)
    assert groups.dtype == np.int64
    again = draw_groups(table, group_size, n_groups, np.random.default_rng(seed), sequential)
    np.testing.assert_array_equal(groups, again)
    for start in range(0, n_groups - n + 1, n):
        assert set(groups[start : start + n, 0]) == set(range(n))
    if sequential:
        np.testing.assert_array_equal(groups[:, 0], np.arange(n_groups) % n)
    for group in groups:
        members = group[group >= 0]
        assert len(set(members)) == len(members)
        assert len(set(index[members])) == 1
        assert (group[len(members) :] == -1).all()
        available = table[group[0]][table[group[0]] >= 0]
        assert set(members[1:]) <= set(available)
        assert len(members) - 1 == min(group_size - 1, len(available))


def test_members_are_drawn_and_not_just_the_nearest():
    """[DATA-101]"""
    positions, index = scan(40)
    table = neighbours(positions, index, 9)
    groups = draw_groups(table, 4, 4000, np.random.default_rng(0))
    share = np.zeros(9)
    for group in groups:
        share += np.isin(table[group[0]], group[1:])
    np.testing.assert_allclose(share / len(groups), 3 / 9, atol=0.04)
    assert not np.array_equal(groups[:40, 0], np.arange(40))
    other = draw_groups(table, 4, 4000, np.random.default_rng(1))
    assert not np.array_equal(groups, other)


def test_group_of_one_is_its_anchor():
    groups = draw_groups(neighbours(*scan(5), 0), 1, 7, np.random.default_rng(0), sequential=True)
    np.testing.assert_array_equal(groups[:, 0], [0, 1, 2, 3, 4, 0, 1])


def test_what_cannot_be_grouped_is_refused():
    """[DATA-102]"""
    positions, _ = scan(6)
    for group_size, count, said in [
        (5, 3, "neighbor_count is 3; a group of 5 needs 4"),
        (7, None, "A group has 7 patterns, but the largest scan has 6"),
        (0, None, "group_size is 0"),
    ]:
        with pytest.raises(ConfigError) as caught:
            neighbour_table(dataset(positions), group_size, count)
        assert said in str(caught.value)
        assert caught.value.remedy
    with pytest.raises(ConfigError, match="largest scan has 3"):
        neighbour_table(dataset(positions, np.array([0, 0, 0, 1, 1, 1])), 4)
    with pytest.raises(ConfigError, match="largest scan has 0"):
        neighbour_table(dataset(np.zeros((0, 2))), 1)
    with pytest.raises(ConfigError, match="from 2 neighbours"):
        draw_groups(np.zeros((6, 2), np.int64), 4, 3, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="no pattern"):
        draw_groups(np.zeros((0, 2), np.int64), 1, 3, np.random.default_rng(0))


def test_defaults():
    """[DATA-102]"""
    assert default_neighbour_count(8, 1000) == 11
    assert default_neighbour_count(4, 1000) == 5
    assert default_neighbour_count(8, 9) == 8
    assert default_neighbour_count(1, 1000) == 0
    assert default_neighbour_count(1, 0) == 0
    assert [default_group_count(n, 8) for n in (1, 8, 9, 2025)] == [1, 1, 2, 254]
    positions, _ = scan(30)
    assert neighbour_table(dataset(positions), 8).shape == (30, 11)
    assert neighbour_table(dataset(positions), 8, 7).shape == (30, 7)
    assert neighbour_table(dataset(positions[:8]), 8).min() >= 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.data())
def test_subsamples(n, data):
    """[DATA-104]"""
    k, seed = data.draw(st.integers(1, n)), data.draw(st.integers(0, 99))
    chosen = subsample(n, k, seed)
    assert chosen.dtype == np.int64
    assert len(chosen) == k
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < n
    np.testing.assert_array_equal(chosen, subsample(n, k, seed))
    np.testing.assert_array_equal(subsample(n, k, seed, sequential=True), np.arange(k))
    np.testing.assert_array_equal(subsample(n, None, seed), np.arange(n))


def test_subsamples_move_with_the_seed_and_end_with_the_scan():
    """[DATA-102] [DATA-104]"""
    assert not np.array_equal(subsample(100, 10, 0), subsample(100, 10, 1))
    for k in (0, 101):
        with pytest.raises(ConfigError, match=f"n_subsample is {k}; the scan has 100"):
            subsample(100, k, 0)
