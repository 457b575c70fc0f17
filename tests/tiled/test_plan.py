"""Scans that are cut into tiles: specs/28-tiles.md."""

from __future__ import annotations

import numpy as np
import pytest

from ptychopinn.errors import UsageError
from ptychopinn.geometry import Frame, Windows
from ptychopinn.tiled.plan import MAX_TILE_PIXELS, cut_scan, tile_count

N = 16


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_cores_fill_the_object_and_share_the_patterns_equally(count: int) -> None:
    """[TILE-001] A tile has all patterns that see its core, and their windows are inside it."""
    positions = np.random.default_rng(0).uniform(-40, 160, (700, 2))
    tiles = cut_scan(positions, N, count)
    frame = Frame.around(positions, N)
    times = np.zeros(frame.shape, int)
    for tile in tiles:
        here, there = frame.overlap(tile.core)
        assert there == tuple(slice(0, length) for length in tile.core.shape)
        times[here] += 1
        assert abs(int(tile.own.sum()) - 700 / count) < 0.1 * 700 / count
        assert Windows.at(positions[tile.members], N, tile.frame).inside
        far = np.delete(positions, tile.members, axis=0)
        reached = np.concatenate([Windows.at(far, N, tile.core).corners, np.zeros((0, 2), int)])
        assert not ((reached > -N) & (reached < tile.core.shape)).all(axis=1).any()
    assert (times == 1).all()
    own = np.concatenate([tile.members[tile.own] for tile in tiles])
    np.testing.assert_array_equal(np.sort(own), np.arange(700))


def test_more_tiles_than_places_are_refused() -> None:
    """[TILE-001]"""
    with pytest.raises(UsageError, match="cannot be cut into 3 tiles"):
        cut_scan(np.repeat([[0.0, 0.0], [9.0, 0.0]], 50, axis=0), N, 3)


@pytest.mark.parametrize(
    ("side", "workers", "count"), [(640, 1, 1), (640, 2, 2), (640, 1000, 100), (4096, 1, 4), (4096, 6, 6)]
)
def test_the_number_of_tiles_follows_workers_and_memory(side: int, workers: int, count: int) -> None:
    """[TILE-001] Not so many that they are mostly halo."""
    assert MAX_TILE_PIXELS == 2048**2
    assert tile_count(Frame((side, side)), N, workers) == count
