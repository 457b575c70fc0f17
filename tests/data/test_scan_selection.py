"""Patterns of a scan that are chosen, and scans that are joined: specs/24-formats.md."""

from __future__ import annotations

import numpy as np
import pytest

from ptychopinn.data.raw_scan import Geometry, RawScan
from ptychopinn.data.scan_selection import drop_outliers, join_scans, take_patterns, take_region
from ptychopinn.errors import DataError


def test_patterns_are_selected_with_all_that_belongs_to_them() -> None:
    """[DATA-223]"""
    n = 6
    raw = RawScan(
        np.arange(n)[:, None, None] * np.ones((n, 4, 4), np.uint16),
        np.stack([np.arange(n), np.zeros(n)], axis=1).astype(float),
        scan_index=np.arange(n) // 3,
    )
    some = take_patterns(raw, np.array([5, 1]))
    assert (some.patterns[:, 0, 0].tolist(), some.scan_index.tolist()) == ([5, 1], [1, 0])  # type: ignore[union-attr]
    inside = take_region(raw, (1.5, 4, -1, 1))
    assert inside.positions[:, 0].tolist() == [2, 3, 4]  # type: ignore[index]
    with pytest.raises(DataError, match=r"they are from \[0.0, 0.0\] to \[5.0, 0.0\]"):
        take_region(raw, (10, 20, 0, 1))
    with pytest.raises(DataError, match="from 0 to 5"):
        take_patterns(raw, np.array([6]))


def test_outliers_are_named_and_left_out() -> None:
    """[DATA-223] A lost position, one that is not finite, a frame of noise, one in the dark; nothing of a good scan."""
    rng = np.random.default_rng(0)
    patterns = rng.poisson(20, (64, 16, 16)).astype(float)
    positions = 3.0 * np.stack(np.divmod(np.arange(64), 8), axis=1)
    assert len(drop_outliers(RawScan(patterns, positions)).patterns) == 64
    patterns[7], patterns[20] = 4000.0, 0.0
    positions[30], positions[40, 1] = 1e6, np.nan
    found = drop_outliers(RawScan(patterns, positions))
    assert len(found.patterns) == 60
    assert "left out: 7, 20, 30, 40" in found.notes[-1]


def test_scans_are_joined_on_the_pixels_of_the_first() -> None:
    """[DATA-224]"""
    first = RawScan(np.ones((2, 4, 4)), np.ones((2, 2)), geometry=Geometry(object_pixel_m=(1e-8, 1e-8)))
    other = RawScan(np.ones((3, 4, 4)), np.ones((3, 2)), geometry=Geometry(object_pixel_m=(2e-8, 2e-8)))
    joined = join_scans([first, other, first])
    assert joined.scan_index.tolist() == [0, 0, 1, 1, 1, 2, 2]  # type: ignore[union-attr]
    assert joined.positions[:, 0].tolist() == [1, 1, 2, 2, 2, 1, 1]  # type: ignore[index]
    with pytest.raises(DataError, match="cannot be joined"):
        join_scans([first, RawScan(np.ones((3, 5, 5)), np.ones((3, 2)))])
