"""Residuals of noise and of the mean pattern."""

from __future__ import annotations

import numpy as np
import pytest

from ptychopinn.metrics.baselines import mean_pattern_residual, poisson_residual


def residual(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(((np.sqrt(counts) - np.sqrt(expected)) ** 2).sum() / counts.sum()))


@pytest.mark.parametrize("dose", [0.02, 0.3, 2.0, 40.0, 3e3])
def test_noise_leaves_what_a_perfect_model_leaves(dose: float) -> None:
    """[VER-001] at any dose."""
    rng = np.random.default_rng(0)
    expected = np.broadcast_to(dose * rng.uniform(0.2, 2, (16, 16)), (400, 16, 16))
    counts = rng.poisson(expected).astype(np.float32)
    good = np.ones((16, 16), bool)
    assert poisson_residual(counts, good) == pytest.approx(residual(counts, expected), rel=0.03)


def test_noise_of_speckle_is_estimated_from_below() -> None:
    """[VER-001] expected counts that change from pattern to pattern."""
    rng = np.random.default_rng(1)
    expected = rng.exponential(0.5, (400, 16, 16))
    counts = rng.poisson(expected).astype(np.float32)
    found = poisson_residual(counts, np.ones((16, 16), bool))
    assert 0.85 < found / residual(counts, expected) < 1.02


def test_bad_pixels_do_not_count() -> None:
    counts = np.random.default_rng(2).poisson(5.0, (20, 8, 8)).astype(np.float32)
    good = np.ones((8, 8), bool)
    good[2, 3] = False
    spoilt = counts.copy()
    spoilt[:, 2, 3] = 1e6
    for figure in (poisson_residual, mean_pattern_residual):
        assert figure(spoilt, good) == figure(counts, good)


def test_the_mean_pattern_is_a_model() -> None:
    """[VER-001]"""
    counts = np.random.default_rng(3).poisson(7.0, (30, 8, 8)).astype(np.float32)
    mean = np.broadcast_to(counts.mean(axis=0), counts.shape)
    assert mean_pattern_residual(counts, np.ones((8, 8), bool)) == pytest.approx(residual(counts, mean))


def test_without_a_count_there_is_no_residual() -> None:
    counts, good = np.zeros((3, 8, 8), np.float32), np.ones((8, 8), bool)
    assert poisson_residual(counts, good) == mean_pattern_residual(counts, good) == 0
