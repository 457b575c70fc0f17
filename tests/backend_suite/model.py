"""Network and illumination, and their arrays in an archive. Requirements: specs/08-archive.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from backend_suite.ops import Ops
from ptychopinn.config import ModelConfig
from ptychopinn.config.execution import Precision
from ptychopinn.errors import ArchiveError
from ptychopinn.forward import detector_ramp
from ptychopinn.simulate import simulate_probe
from ptychopinn.typing import AnyArray, ComplexArray

CONFIG = ModelConfig(N=32, n_filters_scale=0.1, iterations=2)
PROBE = simulate_probe("defocused", 32, photons=1.0, modes=2)
OFFSET = np.array([1.25, -0.5], np.float32)
COUNTS = np.random.default_rng(0).gamma(0.5, 2.0, (3, 32, 32)).astype(np.float32)

Make = Callable[..., Any]


@pytest.fixture
def model(ops: Ops) -> Make:
    """Every small tensor random, so that all of the network acts."""

    def make(precision: Precision = Precision.FLOAT32) -> Any:
        rng = np.random.default_rng(3)
        arrays = {
            name: 0.1 * rng.standard_normal(array.shape).astype(np.float32)
            if name.startswith("network/") and array.size < 2000
            else array
            for name, array in ops.model.model_arrays(ops.build(CONFIG, PROBE, OFFSET, log_intensity=0.1)).items()
        }
        return ops.filled(CONFIG, arrays, precision)

    return make


@pytest.fixture
def predict(ops: Ops) -> Callable[..., ComplexArray]:
    """Predict with a model: (n, N, N) counts to (n, N/2, N/2) complex64 patches."""

    def run(made: Any, counts: AnyArray, mean_counts: float) -> AnyArray:
        light, good = ops.array(made.illumination()), np.ones((32, 32), np.float32)

        def first(given: Any, mean: Any, *by: Any) -> Any:
            return made(given, mean, made.prepare_probe(*by))[:, 0]

        return ops.run(first, counts[:, None], np.float32(mean_counts), light, good)

    return run


def test_the_illumination_is_the_probe_of_the_physics(ops: Ops, model: Make) -> None:
    """Moved to the detector's offset by the ramp of the core, its counts times exp(log_intensity)."""
    found = ops.array(model().illumination())
    expected = PROBE * detector_ramp(np.array([1.25, -0.5]), 32) * np.exp(0.05)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (np.abs(found) ** 2).sum() == pytest.approx(np.exp(0.1), rel=1e-5)


def test_the_free_probe_is_of_size_one(ops: Ops) -> None:
    """One learning rate serves probes of any width and scale."""
    for factor in (1.0, 1e-3):
        values = ops.array(ops.build(CONFIG, np.complex64(factor) * PROBE, OFFSET).illumination.values)
        assert np.hypot(values[..., 0], values[..., 1]).max() == pytest.approx(1.0, rel=1e-5)


def test_the_dose_does_not_move_a_prediction(model: Make, predict: Make) -> None:
    made = model()
    one = predict(made, COUNTS, 800.0)
    np.testing.assert_allclose(predict(made, np.float32(1000) * COUNTS, 800_000.0), one, atol=1e-4)
    assert not np.allclose(predict(made, np.float32(1000) * COUNTS, 800.0), one, atol=1e-2)


def test_low_precision_is_close_and_gives_complex64(model: Make, predict: Make) -> None:
    """[TRAIN-010]"""
    exact, low = predict(model(), COUNTS, 800.0), predict(model(Precision.BFLOAT16), COUNTS, 800.0)
    assert low.dtype == exact.dtype == np.complex64
    assert 0 < np.linalg.norm(low - exact) / np.linalg.norm(exact - 1) < 0.05


def test_arrays_make_the_same_model_again(ops: Ops, model: Make, predict: Make) -> None:
    """[REC-008]"""
    made = model()
    arrays = ops.model.model_arrays(made)
    again = ops.filled(CONFIG, arrays, Precision.FLOAT32)
    np.testing.assert_allclose(predict(again, COUNTS, 800.0), predict(made, COUNTS, 800.0), atol=1e-6)
    for name, array in ops.model.model_arrays(again).items():
        np.testing.assert_allclose(array, arrays[name], rtol=1e-6, err_msg=name)


def test_arrays_are_named_and_laid_out_without_a_framework(ops: Ops, model: Make) -> None:
    arrays = ops.model.model_arrays(model())
    assert {"illumination/probe", "illumination/offset_px", "illumination/log_intensity"} < set(arrays)
    assert all(re.fullmatch(r"[a-z0-9_]+(/[a-zA-Z0-9_]+)+", name) for name in arrays)
    assert not any(word in name for name in arrays for word in (".", "module", "torch", "kernel", "weight_orig"))
    assert arrays["illumination/probe"].shape == (2, 32, 32)
    assert arrays["illumination/probe"].dtype == np.complex64
    np.testing.assert_allclose(arrays["illumination/probe"], PROBE, atol=1e-6)  # the offset is not in it
    assert arrays["network/embed_pattern/weight"].shape == (8, 4)
    assert arrays["network/embed/0/weight"].shape == (8, 4)
    assert arrays["network/body/0/conv/weight"].shape == (8, 8, 3, 3)
    assert arrays["network/mix/down"].shape == arrays["network/mix/along"].shape == (8, 16, 16)
    others = {name: array.dtype for name, array in arrays.items() if name != "illumination/probe"}
    assert set(others.values()) == {np.dtype(np.float32)}
    assert all(array.flags.c_contiguous for array in arrays.values())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("illumination/probe", None, "lacks the tensor 'illumination/probe'"),
        ("illumination/log_intensity", None, "lacks the tensor 'illumination/log_intensity'"),
        ("illumination/probe", np.ones((32, 32), np.complex64), "N = 32 was expected"),
        ("illumination/probe", np.ones((1, 64, 64), np.complex64), r"\(1, 64, 64\).*N = 32 was expected"),
        ("illumination/offset_px", np.zeros(3, np.float32), r"\(3,\)"),
        ("network/mix/down", None, "'mix/down' is missing"),
        ("network/head/0/bias", np.zeros(5, np.float32), r"'head/0/bias' has the shape \(5,\), not \(2,\)"),
        ("network/extra", np.zeros(5, np.float32), "'extra' is of no use"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(ops: Ops, model: Make, name: str, change: Any, message: str) -> None:
    """By name, with the remedy."""
    arrays = dict(ops.model.model_arrays(model()))
    arrays.pop(name, None)
    if change is not None:
        arrays[name] = change
    with pytest.raises(ArchiveError, match=message) as caught:
        ops.filled(CONFIG, arrays, Precision.FLOAT32)
    assert "Save the model again" in caught.value.remedy


def test_arrays_of_another_configuration_are_refused(ops: Ops, model: Make) -> None:
    with pytest.raises(ArchiveError, match="do not fit its configuration"):
        ops.filled(CONFIG.model_copy(update={"iterations": 3}), ops.model.model_arrays(model()), Precision.FLOAT32)
