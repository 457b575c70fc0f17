"""Figures of one reconstruction: specs/14-comparison.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychopinn.comparison.scoring import ScoredObject, score_scan
from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.product import origin_of, product_of
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import FloatArray
from ptychopinn.workflows.reference import embed


@pytest.fixture(scope="module")
def data() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=1))


def test_the_object_is_compared_where_it_lies(data: ScanDataset) -> None:
    """[COMP-032] In a reference of another size, whichever side is larger."""
    obj = data.object_guess
    assert obj is not None
    wide = np.pad(obj, ((0, 60), (60, 0)), mode="wrap")
    moved = replace(data, positions=data.positions + np.array([0, 60]), object_guess=None)
    found = score_scan(moved, ScoredObject(obj, (0, 60), data.probe), wide, "no")
    assert found.figures["phase", "corr"] > 0.999
    found = score_scan(data, ScoredObject(wide, (0, -60), data.probe), obj, "no")
    assert found.figures["phase", "corr"] > 0.999


def test_laid_into_another_array() -> None:
    """[COMP-032] Zero where it does not reach, cut off where it sticks out."""
    obj = np.arange(1, 13).reshape(3, 4).astype(np.complex64)
    np.testing.assert_array_equal(embed((2, 3), obj, (-1, 1)), [[0, 5, 6], [0, 9, 10]])
    assert not embed((2, 2), obj, (5, 0)).any()


def move_positions(data: ScanDataset) -> FloatArray:
    """Positions of which the first moved far."""
    moves = np.random.default_rng(0).normal(0, 0.3, data.positions.shape)
    moves[0] = 0.9
    return data.positions + moves


def test_one_position_that_moved_does_not_move_the_object(data: ScanDataset) -> None:
    """[COMP-032]"""
    assert data.object_guess is not None
    product = product_of(replace(data, positions=move_positions(data)), data.object_guess, data.probe, origin=(-3, 5))
    assert origin_of(product, data.positions) == (-3, 5)


def test_the_residual_is_taken_at_refined_positions(data: ScanDataset) -> None:
    """[COMP-032] The box stays that of the scan."""
    assert data.object_guess is not None
    wrong = replace(data, positions=move_positions(data))
    found = [
        score_scan(wrong, ScoredObject(data.object_guess, (0, 0), data.probe, positions), data.object_guess, "no")
        for positions in (None, data.positions)
    ]
    assert found[1].figures["object", "residual"] < 0.7 * found[0].figures["object", "residual"]
    assert found[1].facts["box"] == found[0].facts["box"]
