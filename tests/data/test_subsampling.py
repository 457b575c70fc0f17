"""Fewer positions that lie all over a scan: specs/13-refinement.md."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ptychopinn.data.subsampling import nearest_to_middle, thin_positions
from ptychopinn.typing import FloatArray

POSITIONS = arrays(np.float64, st.tuples(st.integers(1, 60), st.just(2)), elements=st.floats(-500, 500, width=32))


@given(POSITIONS, st.floats(0.5, 2000))
def test_every_position_has_one_in_its_square(positions: FloatArray, spacing: float) -> None:
    """[REFINE-014]"""
    chosen = thin_positions(positions, spacing)
    assert (np.diff(chosen) > 0).all()
    squares = [tuple(c) for c in np.floor((positions - positions.min(axis=0)) / spacing).astype(int)]
    picked = [squares[k] for k in chosen]
    assert len(set(picked)) == len(picked)
    assert set(picked) == set(squares)
    assert all(squares.index(square) == k for square, k in zip(picked, chosen, strict=True))


def test_a_grid() -> None:
    """[REFINE-014] every second position of every second row."""
    y, x = np.divmod(np.arange(36), 6)
    chosen = thin_positions(7.0 * np.stack([y, x], axis=1), 14)
    np.testing.assert_array_equal(chosen, np.flatnonzero((y % 2 == 0) & (x % 2 == 0)))


@given(POSITIONS, st.integers(1, 80))
def test_the_middle_is_nearest(positions: FloatArray, count: int) -> None:
    """[REFINE-018] No position that is left out lies nearer to the median than one that is chosen."""
    chosen = nearest_to_middle(positions, count)
    assert len(chosen) == min(count, len(positions))
    assert (np.diff(chosen) > 0).all()
    distance = ((positions - np.median(positions, axis=0)) ** 2).sum(axis=1)
    left = np.delete(distance, chosen)
    assert left.size == 0 or distance[chosen].max() <= left.min()
