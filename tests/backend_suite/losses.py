"""Loss terms: known values, and what they do not see. Requirements: specs/10-training.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from backend_suite.ops import Ops
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray

GOOD = np.ones((8, 8), np.float32)
BOTH = pytest.mark.parametrize("name", ["poisson_deviance", "amplitude_error"])


def counts(seed: int, mean: float = 50.0) -> FloatArray:
    return np.random.default_rng(seed).gamma(2.0, mean / 2, (3, 8, 8)).astype(np.float32)


def complexes(seed: int, *shape: int) -> ComplexArray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def weights(seed: int = 1) -> FloatArray:
    return np.random.default_rng(seed).random((8, 8)).astype(np.float32)


def full(value: float) -> FloatArray:
    return np.full((1, 8, 8), value, np.float32)


def cost(ops: Ops, name: str, expected: AnyArray, measured: AnyArray, good: AnyArray, mean_counts: float) -> AnyArray:
    return ops.run(getattr(ops.losses, name), expected, measured, good, np.float32(mean_counts))


def slope(ops: Ops, name: str, expected: AnyArray, measured: AnyArray, good: AnyArray = GOOD) -> AnyArray:
    """Gradient of a loss in the expected counts."""
    given = [ops.tensor(a) for a in (measured, good, np.float32(100.0))]
    return ops.gradients(lambda e: getattr(ops.losses, name)(e, *given), expected)[0]


@BOTH
def test_a_perfect_prediction_costs_nothing(ops: Ops, name: str) -> None:
    """[LOSS-002]"""
    np.testing.assert_allclose(cost(ops, name, counts(0), counts(0), GOOD, 100.0), 0, atol=1e-6)
    assert (cost(ops, name, counts(0), counts(1), GOOD, 100.0) > 0.1).all()


def test_known_deviance(ops: Ops) -> None:
    """[LOSS-002]"""
    e, n = 3 + ops.losses.COUNT_FLOOR, 1 + ops.losses.COUNT_FLOOR
    found = cost(ops, "poisson_deviance", full(3), full(1), GOOD, 200.0)
    assert found.item() == pytest.approx(64 * (e - n - n * math.log(e / n)) / 200, rel=1e-5)


def test_known_amplitude_error(ops: Ops) -> None:
    floor = ops.losses.COUNT_FLOOR
    found = cost(ops, "amplitude_error", full(9), full(4), GOOD, 400.0)
    assert found.item() == pytest.approx(
        64 * (math.sqrt(9 + floor) - math.sqrt(4 + floor)) / math.sqrt(400 * 64), rel=1e-5
    )


@BOTH
def test_the_dose_does_not_move_a_loss(ops: Ops, name: str) -> None:
    """Counts, prediction and their mean times anything: the same, but for the constant in dark pixels."""
    bright = cost(ops, name, counts(0), counts(1), GOOD, 3200.0)
    for factor in (10, 1000):
        found = cost(ops, name, factor * counts(0), factor * counts(1), GOOD, factor * 3200.0)
        np.testing.assert_allclose(found, bright, rtol=0.02)


@BOTH
def test_a_bad_pixel_carries_no_loss(ops: Ops, name: str) -> None:
    """[LOSS-003]"""
    good, harmed = GOOD.copy(), counts(1)
    good[2, 3:6] = 0
    before = cost(ops, name, counts(0), harmed, good, 100.0)
    gradient = slope(ops, name, counts(0), harmed, good)
    harmed[:, 2, 3:6] = 1e6
    np.testing.assert_allclose(cost(ops, name, counts(0), harmed, good, 100.0), before)
    assert (gradient[:, 2, 3:6] == 0).all()
    assert (gradient[:, good.astype(bool)] != 0).all()


@BOTH
def test_dark_pixels_are_no_trouble(ops: Ops, name: str) -> None:
    assert np.isfinite(cost(ops, name, full(0), counts(0)[:1], GOOD, 100.0)).all()
    assert np.isfinite(slope(ops, name, full(0), counts(0)[:1])).all()


def test_total_variation_of_a_slope(ops: Ops) -> None:
    rows = np.tile(np.arange(6.0)[:, None], (1, 6))
    for canvas, expected in ((0.5j * rows, 0.5), (2 * rows + 3 * rows.T, 5), (np.full((6, 6), 3 + 1j), 0)):
        found = ops.run(ops.losses.total_variation, canvas.astype(np.complex64))
        assert found.item() == pytest.approx(expected)


def test_total_variation_of_a_plain_has_a_gradient(ops: Ops) -> None:
    """Where nothing covers a canvas it is constant: the kink of the modulus must not spread NaN."""
    (gradient,) = ops.gradients(ops.losses.total_variation, np.zeros((1, 6, 6), np.complex64))
    np.testing.assert_array_equal(gradient, 0)


def test_patch_error_does_not_see_a_patchs_phase(ops: Ops) -> None:
    """[LOSS-004]"""
    truth, other = complexes(0, 3, 8, 8), complexes(1, 3, 8, 8)
    turn = np.exp(1j * np.array([0.3, 2.0, -3.0])).astype(np.complex64)[:, None, None]

    def error(patches: ComplexArray) -> AnyArray:
        return ops.run(ops.losses.patch_error, patches, truth, weights())

    assert error(truth * turn).max() < 1e-6
    np.testing.assert_allclose(error(other * turn), error(other), rtol=1e-5)
    assert error(other).min() > 0.5


def test_known_patch_error(ops: Ops) -> None:
    truth, weight = np.ones((1, 4, 4), np.complex64), np.ones((4, 4), np.float32)

    def error(patches: ComplexArray) -> float:
        return float(ops.run(ops.losses.patch_error, patches, truth, weight).item())

    assert error(np.complex64(0.75) * truth) == pytest.approx(0.25)
    patches = truth.copy()
    patches[0, 0, 0] = 3  # only there
    weight[0, 0] = 0
    assert error(patches) == 0
    weight[0, 0] = 5
    assert error(patches) == pytest.approx(5 * 2 / 20)


def test_no_gradient_passes_through_the_phase(ops: Ops) -> None:
    """The truth is turned as if its phase were a constant."""
    truth, weight, prediction = complexes(0, 1, 8, 8), weights(), complexes(1, 1, 8, 8)
    given = ops.tensor(truth), ops.tensor(weight)
    (found,) = ops.gradients(lambda p: ops.losses.patch_error(p, *given), prediction)
    product = (prediction * truth.conj() * weight).sum()
    left = prediction - truth * product / abs(product)
    np.testing.assert_allclose(found, left / np.abs(left) * weight / weight.sum(), atol=1e-5)


def test_patch_error_of_nothing_is_finite(ops: Ops) -> None:
    nothing, given = np.zeros((1, 8, 8), np.complex64), (complexes(0, 1, 8, 8), GOOD)
    assert np.isfinite(ops.run(ops.losses.patch_error, nothing, *given)).all()
    tensors: list[Any] = [ops.tensor(a) for a in given]
    (gradient,) = ops.gradients(lambda p: ops.losses.patch_error(p, *tensors), nothing)
    assert np.isfinite(gradient).all()
