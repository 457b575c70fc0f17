"""Splits by space."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.splits import probe_radius_px, split_by_space
from ptychopinn.errors import ConfigError


def dataset(positions, scan_index=None, radius=2.0):
    n, size = len(positions), 16
    r = np.arange(size) - (size - 1) / 2
    probe = (r[:, None] ** 2 + r[None, :] ** 2 <= radius**2).astype(complex)
    return ScanDataset(np.ones((n, size, size)), Measurement.COUNTS, positions, probe[None], scan_index=scan_index)


def grid(rows, columns, step=3.0):
    y, x = np.mgrid[:rows, :columns]
    return step * np.stack([y.ravel(), x.ravel()], axis=1).astype(float)


def test_a_strip_at_the_far_end_of_the_longer_axis_is_held_out():
    """[DATA-110]"""
    wide, tall = grid(4, 10), grid(10, 4)
    for positions, axis in ((wide, 1), (tall, 0)):
        train, held = split_by_space(dataset(positions), 0.2)
        assert len(held) == 8
        assert set(positions[held, axis]) == {24.0, 27.0}
        assert len(train) + len(held) == 40  # the probe is narrower than a step: nobody is left out
        assert not set(train) & set(held)


def test_overlapping_neighbours_are_left_out():
    """[DATA-111]"""
    positions = grid(4, 10)
    train, held = split_by_space(dataset(positions, radius=4.0), 0.2)
    assert set(positions[held, 1]) == {24.0, 27.0}
    assert positions[train, 1].max() == 18.0  # the row at 21 lies within the probe's radius
    assert len(train) == 28
    wide = split_by_space(dataset(positions, radius=8.0), 0.2)[0]
    assert len(wide) == 24  # no more than are held out
    few_train, few_held = split_by_space(dataset(positions, radius=8.0), 0.8)
    assert (len(few_train), len(few_held)) == (4, 32)  # no more than half of the rest


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(1, 4), st.integers(0, 10_000), st.floats(0.001, 0.999), st.booleans())
def test_both_sides_have_patterns_and_nothing_is_random(n, scans, seed, fraction, flat):
    """[DATA-110] [DATA-111]"""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 60, (n, 2)) * (0 if flat else 1)
    index = rng.integers(0, scans, n)
    index[:2] = 0
    data = dataset(positions, index, radius=6.0)
    train, held = split_by_space(data, fraction)
    for part in (train, held):
        assert part.dtype == np.int64
        assert len(part)
        assert (np.diff(part) > 0).all()
    assert not set(train) & set(held)
    for again, first in zip(split_by_space(data, fraction), (train, held), strict=True):
        np.testing.assert_array_equal(again, first)
    for scan in np.unique(index):
        members, mine = np.flatnonzero(index == scan), held[index[held] == scan]
        assert len(mine) == (min(max(round(fraction * len(members)), 1), len(members) - 1) if len(members) > 1 else 0)
        rest = train[index[train] == scan]
        assert len(rest)
        axis = int(np.ptp(positions[members], axis=0).argmax())
        if len(mine):
            assert positions[mine, axis].min() >= positions[rest, axis].max()
            assert len(members) - len(mine) - len(rest) <= len(mine)


def test_what_cannot_be_split_is_refused():
    """[DATA-110]"""
    for fraction in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="validation_fraction"):
            split_by_space(dataset(grid(4, 4)), fraction)
    with pytest.raises(ConfigError, match="no scan has two"):
        split_by_space(dataset(grid(1, 3), np.arange(3)), 0.5)


def test_radius_of_a_disc():
    """[DATA-111]"""
    r = np.arange(64) - 31.5
    disc = (r[:, None] ** 2 + r[None, :] ** 2 <= 12.0**2).astype(complex)
    assert probe_radius_px(disc[None]) == pytest.approx(12.0, rel=0.02)
    assert probe_radius_px(np.stack([disc, 1j * disc])) == pytest.approx(12.0, rel=0.02)
    assert probe_radius_px(0 * disc[None]) == 0
