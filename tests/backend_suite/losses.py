"""Loss terms of the core with a framework's operations: known values, what they do not see, and where gradients flow.

Requirements: specs/10-training.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from backend_suite.ops import Ops
from ptychopinn.forward import COUNT_FLOOR
from ptychopinn.simulate import simulate_probe
from ptychopinn.stitching import patch_weights as reference_patch_weights
from ptychopinn.training import losses
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray

GOOD = np.ones((8, 8), np.float32)
BOTH = pytest.mark.parametrize("name", ["poisson_deviance", "amplitude_error"])


def counts(seed: int, mean: float = 50.0) -> FloatArray:
    """Measured counts, (3, 8, 8) float32, of this mean."""
    return np.random.default_rng(seed).gamma(2.0, mean / 2, (3, 8, 8)).astype(np.float32)


def complexes(seed: int, *shape: int) -> ComplexArray:
    """Complex normal numbers of any shape, complex64."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def weights(seed: int = 1) -> FloatArray:
    """Weights of the pixels of a patch, (8, 8) float32, from 0 to 1."""
    return np.random.default_rng(seed).random((8, 8)).astype(np.float32)


def full(value: float) -> FloatArray:
    """One pattern of (8, 8) with the same value at each pixel, (1, 8, 8) float32."""
    return np.full((1, 8, 8), value, np.float32)


def term(ops: Ops, name: str) -> Callable[..., Any]:
    """A term as a function of tensors."""
    return partial(getattr(losses, name), ops.operations)


def cost(ops: Ops, name: str, expected: AnyArray, measured: AnyArray, good: AnyArray, mean_counts: float) -> AnyArray:
    """A loss term of the backend for each pattern, (n,) float32."""
    return ops.run(term(ops, name), expected, measured, good, np.float32(mean_counts))


def slope(ops: Ops, name: str, expected: AnyArray, measured: AnyArray, good: AnyArray = GOOD) -> AnyArray:
    """Gradient of a loss in the expected counts."""
    given = [ops.tensor(a) for a in (measured, good, np.float32(100.0))]
    return ops.gradients(lambda e: term(ops, name)(e, *given), expected)[0]


@BOTH
def test_a_perfect_prediction_costs_nothing(ops: Ops, name: str) -> None:
    """[LOSS-002]"""
    np.testing.assert_allclose(cost(ops, name, counts(0), counts(0), GOOD, 100.0), 0, atol=1e-6)
    assert (cost(ops, name, counts(0), counts(1), GOOD, 100.0) > 0.1).all()


def test_known_deviance(ops: Ops) -> None:
    """[LOSS-002]"""
    e, n = 3 + COUNT_FLOOR, 1 + COUNT_FLOOR
    found = cost(ops, "poisson_deviance", full(3), full(1), GOOD, 200.0)
    assert found.item() == pytest.approx(64 * (e - n - n * math.log(e / n)) / 200, rel=1e-5)


def test_known_amplitude_error(ops: Ops) -> None:
    floor = COUNT_FLOOR
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
def test_bad_values_of_single_patterns_cost_nothing(ops: Ops, name: str) -> None:
    """[LOSS-003] [DATA-130] A network sees the average in their place; the loss and its gradient do not."""
    good, marked, expected = GOOD.copy(), counts(1), np.broadcast_to(GOOD, (3, 8, 8)).copy()
    good[7, 7] = expected[:, 7, 7] = 0
    marked[1, 2, 3:6], expected[1, 2, 3:6] = [-1, -3, -1001], 0
    seen, there = (ops.run(lambda *of, k=k: losses.without_marks(ops.operations, *of)[k], marked, good) for k in (0, 1))
    np.testing.assert_array_equal(there, expected)
    np.testing.assert_array_equal(seen[1, 2, 3:6], [0, 2, 1000])
    np.testing.assert_array_equal(seen[marked >= 0], marked[marked >= 0])
    other = np.where(marked < 0, 7.0, seen).astype(np.float32)
    np.testing.assert_array_equal(*(cost(ops, name, counts(0), given, there, 100.0) for given in (seen, other)))
    assert (slope(ops, name, counts(0), seen, there)[1, 2, 3:6] == 0).all()
    assert (slope(ops, name, counts(0), seen, there)[2, 2, 3:6] != 0).all()


@BOTH
def test_dark_pixels_are_no_trouble(ops: Ops, name: str) -> None:
    assert np.isfinite(cost(ops, name, full(0), counts(0)[:1], GOOD, 100.0)).all()
    assert np.isfinite(slope(ops, name, full(0), counts(0)[:1])).all()


def test_total_variation_of_a_slope(ops: Ops) -> None:
    rows = np.tile(np.arange(6.0)[:, None], (1, 6))
    for canvas, expected in ((0.5j * rows, 0.5), (2 * rows + 3 * rows.T, 5), (np.full((6, 6), 3 + 1j), 0)):
        found = ops.run(term(ops, "total_variation"), canvas.astype(np.complex64))
        assert found.item() == pytest.approx(expected)


def test_total_variation_of_a_plain_has_a_gradient(ops: Ops) -> None:
    """Where nothing covers a canvas it is constant: the kink of the modulus must not spread NaN."""
    (gradient,) = ops.gradients(term(ops, "total_variation"), np.zeros((1, 6, 6), np.complex64))
    np.testing.assert_array_equal(gradient, 0)


def test_patch_error_does_not_see_a_patchs_phase(ops: Ops) -> None:
    """[LOSS-004]"""
    truth, other = complexes(0, 3, 8, 8), complexes(1, 3, 8, 8)
    turn = np.exp(1j * np.array([0.3, 2.0, -3.0])).astype(np.complex64)[:, None, None]

    def error(patches: ComplexArray) -> AnyArray:
        return ops.run(term(ops, "patch_error"), patches, truth, weights())

    assert error(truth * turn).max() < 1e-6
    np.testing.assert_allclose(error(other * turn), error(other), rtol=1e-5)
    assert error(other).min() > 0.5


def test_known_patch_error(ops: Ops) -> None:
    truth, weight = np.ones((1, 4, 4), np.complex64), np.ones((4, 4), np.float32)

    def error(patches: ComplexArray) -> float:
        return float(ops.run(term(ops, "patch_error"), patches, truth, weight).item())

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
    (found,) = ops.gradients(lambda p: term(ops, "patch_error")(p, *given), prediction)
    product = (prediction * truth.conj() * weight).sum()
    left = prediction - truth * product / abs(product)
    np.testing.assert_allclose(found, left / np.abs(left) * weight / weight.sum(), atol=1e-5)


def test_patch_error_of_nothing_is_finite(ops: Ops) -> None:
    nothing, given = np.zeros((1, 8, 8), np.complex64), (complexes(0, 1, 8, 8), GOOD)
    assert np.isfinite(ops.run(term(ops, "patch_error"), nothing, *given)).all()
    tensors: list[Any] = [ops.tensor(a) for a in given]
    (gradient,) = ops.gradients(lambda p: term(ops, "patch_error")(p, *tensors), nothing)
    assert np.isfinite(gradient).all()


def test_every_patch_may_have_weights_of_its_own(ops: Ops) -> None:
    truth, patches = complexes(0, 2, 8, 8), complexes(1, 2, 8, 8)
    own = np.stack([weights(1), weights(2)])
    found = ops.run(term(ops, "patch_error"), patches, truth, own)
    for k in range(2):
        one = ops.run(term(ops, "patch_error"), patches[k : k + 1], truth[k : k + 1], own[k])
        assert found[k] == pytest.approx(one.item(), rel=1e-5)
    assert found[1] != pytest.approx(ops.run(term(ops, "patch_error"), patches, truth, own[0])[1], rel=1e-3)


def test_weights_are_those_of_the_stitcher(ops: Ops) -> None:
    """[PROBE-004] For one probe, and for a probe a pattern; without gradient."""
    probes = np.stack([simulate_probe(kind, 32, photons=1.0, modes=2) for kind in ("defocused", "disc")])

    def compute_weights(probe: Any) -> Any:
        return losses.patch_weights(ops.operations, probe, 16)

    expected = [reference_patch_weights(probe, 16) for probe in probes]
    np.testing.assert_allclose(ops.run(compute_weights, probes[0]), expected[0], atol=1e-6)
    np.testing.assert_allclose(ops.run(compute_weights, probes), expected, atol=1e-6)
    (gradient,) = ops.gradients(compute_weights, probes)
    np.testing.assert_array_equal(gradient, 0)


def test_neighbour_products_of_a_ramp_have_its_slope(ops: Ops) -> None:
    """Weighted, and without the groups that only fill a batch up; no gradient."""
    y, x = np.indices((16, 16))
    modulus = 1 + 0.2 * np.random.default_rng(0).random((2, 3, 16, 16))
    ramp = (modulus * np.exp(1j * (0.2 * y - 0.1 * x))).astype(np.complex64)
    ramp[1] = np.exp(-1j * y)
    weight = np.ones((2, 3, 16, 16), np.float32) * np.array([1, 0], np.float32)[:, None, None, None]
    found = np.stack([ops.array(p) for p in term(ops, "neighbour_products")(ops.tensor(ramp), ops.tensor(weight))])
    np.testing.assert_allclose(np.arctan2(found[:, 1], found[:, 0]), [0.2, -0.1], atol=1e-5)
    assert found[0, 0] == pytest.approx(np.abs(ramp[0, :, 1:] * ramp[0, :, :-1]).sum() * np.cos(0.2), rel=1e-4)
    gradients = ops.gradients(lambda p, w: sum(term(ops, "neighbour_products")(p, w)), ramp, weight)
    assert not any(gradient.any() for gradient in gradients)
