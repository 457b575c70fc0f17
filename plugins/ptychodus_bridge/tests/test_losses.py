"""The curve of losses that grows in the window: specs/12-ptychodus.md."""

from __future__ import annotations

import numpy as np
import pytest

from ptychopinn_ptychodus.losses import LossCurve, smooth


def test_losses_are_smoothed_without_a_shift() -> None:
    """[PTY-035] Noise is averaged; a straight line stays one, also at its ends; few values stay as they are."""
    line = [5.0 - 0.5 * k for k in range(60)]
    assert smooth(line) == pytest.approx(line)
    noise = np.random.default_rng(1).normal(size=400)
    found = smooth(list(noise))
    assert np.std(found[20:-20]) < 0.25 * np.std(noise)
    assert (found[0], found[-1]) == (noise[0], noise[-1])
    for count in (0, 1, 2, 19):
        assert smooth(line[:count]) == line[:count]


def test_the_curve_has_means_of_all_batches() -> None:
    """[PTY-035] It grows from the first second on, and stays short."""
    losses: list[tuple[int, float]] = []
    curve = LossCurve(losses)
    for k in range(20_000):
        curve.add(float(k), now=0.01 * k)
    assert losses[0][0] < 10
    assert len(losses) < 400
    before = 0
    for batches, mean in losses:
        assert mean == pytest.approx((before + batches - 1) / 2)
        before = batches
