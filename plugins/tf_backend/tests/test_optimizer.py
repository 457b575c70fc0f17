"""The optimizer by its formulas, and the running average. Requirements: specs/10-training.md."""

from __future__ import annotations

import numpy as np
import pytest

from ptychopinn.config import TrainConfig
from ptychopinn.training.optimizer import BETAS, EPSILON, PROBE_RATE, WEIGHT_DECAY, ema_decay
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.optimizer import AdamW, clipped, move_average

NETWORK, LIGHT = "network/head/0/weight", "illumination/values"


def test_steps_are_those_of_the_formulas() -> None:
    """Weight decay on the network alone; the light has a rate of its own."""
    rng = np.random.default_rng(0)
    start, rate, (b1, b2) = rng.standard_normal(5), 0.01, BETAS
    variables = {name: tf.Variable(start, dtype=tf.float32) for name in (NETWORK, LIGHT)}
    optimizer = AdamW(variables)
    expected = {name: start.copy() for name in variables}
    m, v = np.zeros(5), np.zeros(5)
    for t in range(1, 6):
        gradient = rng.standard_normal(5) * 10.0 ** rng.integers(-9, 1, 5)  # some as small as epsilon
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + EPSILON)
        expected[NETWORK] = expected[NETWORK] * (1 - rate * WEIGHT_DECAY) - rate * step
        expected[LIGHT] = expected[LIGHT] - PROBE_RATE * rate * step
        optimizer.apply({name: tf.constant(gradient, tf.float32) for name in variables}, tf.constant(rate, tf.float32))
    for name, variable in variables.items():
        np.testing.assert_allclose(variable.numpy(), expected[name], rtol=2e-5, atol=1e-6, err_msg=name)
    assert {"step", f"{NETWORK}/first", f"{LIGHT}/second"} < set(optimizer.variables())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gradient_clip": None}, [3.0, -4.0]),
        ({"gradient_clip": 1.0}, [0.6, -0.8]),
        ({"gradient_clip": 10.0}, [3.0, -4.0]),
        ({"gradient_clip": 3.5, "gradient_clip_algorithm": "value"}, [3.0, -3.5]),
    ],
)
def test_gradients_are_clipped_together(settings: dict[str, object], expected: list[float]) -> None:
    gradients = {"a": tf.constant([3.0]), "b": tf.constant([-4.0])}
    found = clipped(gradients, TrainConfig(**settings))
    np.testing.assert_allclose([found[name].numpy()[0] for name in "ab"], expected, rtol=1e-5)


def test_the_average_forgets_where_it_began() -> None:
    """[TRAIN-003]"""
    average, weights = {"w": tf.Variable([9.0])}, {"w": tf.Variable([0.0])}
    expected = 9.0
    for step in range(4):
        weights["w"].assign([step + 1.0])
        kept = ema_decay(0.2, step)
        move_average(average, weights, tf.constant(kept))
        expected = kept * expected + (1 - kept) * (step + 1)
        assert average["w"].numpy()[0] == pytest.approx(expected)
        if step == 0:
            assert expected == 1.0


def test_what_does_not_move_stays_to_the_bit() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    average, weights = {"w": tf.Variable(values)}, {"w": tf.Variable(values)}
    for _ in range(20):
        move_average(average, weights, tf.constant(0.99))
    np.testing.assert_array_equal(average["w"].numpy(), values)
