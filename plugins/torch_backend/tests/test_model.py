"""Network and illumination, and their arrays in an archive. Requirements: specs/08-archive.md."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from ptychopinn.config import ModelConfig
from ptychopinn.config.execution import Precision
from ptychopinn.errors import ArchiveError
from ptychopinn.forward import detector_ramp
from ptychopinn.simulate import simulate_probe
from ptychopinn.stitching import patch_weights as reference_patch_weights
from ptychopinn_torch.model import Illumination, Model, model_arrays, model_from_arrays, patch_weights

CONFIG = ModelConfig(N=32, n_filters_scale=0.1, iterations=2)
PROBE = simulate_probe("defocused", 32, photons=1.0, modes=2)


def model(precision: Precision = Precision.FLOAT32, **illumination: Any) -> Model:
    torch.manual_seed(3)
    given = {"probe": PROBE, "offset_px": np.array([1.25, -0.5]), "log_intensity": 0.1, **illumination}
    made = Model(CONFIG, Illumination(**given), precision)
    with torch.no_grad():
        for parameter in made.network.parameters():
            if parameter.numel() < 2000:
                parameter.normal_(std=0.1)
    return made


def predict(made: Model, counts: torch.Tensor, mean_counts: float) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = made(counts, mean_counts, made.illumination(), torch.ones(32, 32))
    return found


COUNTS = torch.from_numpy(np.random.default_rng(0).gamma(0.5, 2.0, (3, 32, 32)).astype(np.float32))


def test_the_illumination_is_the_probe_of_the_physics() -> None:
    """Moved to the detector's offset by the ramp of the core, its counts times exp(log_intensity)."""
    with torch.no_grad():
        found = model().illumination().numpy()
    expected = PROBE * detector_ramp(np.array([1.25, -0.5]), 32) * np.exp(0.05)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (np.abs(found) ** 2).sum() == pytest.approx(np.exp(0.1), rel=1e-5)


def test_the_free_probe_is_of_size_one() -> None:
    """One learning rate serves probes of any width and scale."""
    for factor in (1.0, 1e-3):
        values = Illumination(factor * PROBE, np.zeros(2)).values
        assert values.norm(dim=-1).max().item() == pytest.approx(1.0, rel=1e-5)


def test_weights_are_those_of_the_stitcher() -> None:
    found = patch_weights(torch.from_numpy(PROBE).requires_grad_(), 16)
    assert not found.requires_grad
    np.testing.assert_allclose(found, reference_patch_weights(PROBE, 16), atol=1e-6)


def test_the_dose_does_not_move_a_prediction() -> None:
    made = model()
    one = predict(made, COUNTS, 800.0)
    torch.testing.assert_close(predict(made, 1000 * COUNTS, 800_000.0), one, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(predict(made, 1000 * COUNTS, 800.0), one, atol=1e-2)


def test_low_precision_is_close_and_gives_complex64() -> None:
    """[TRAIN-010]"""
    exact, low = predict(model(), COUNTS, 800.0), predict(model(Precision.BFLOAT16), COUNTS, 800.0)
    assert low.dtype == exact.dtype == torch.complex64
    error = (low - exact).abs().norm() / (exact - 1).abs().norm()
    assert 0 < error < 0.05


def test_arrays_make_the_same_model_again() -> None:
    """[REC-008]"""
    made = model()
    arrays = model_arrays(made)
    again = model_from_arrays(CONFIG, arrays, Precision.FLOAT32)
    torch.testing.assert_close(predict(again, COUNTS, 800.0), predict(made, COUNTS, 800.0), atol=1e-6, rtol=1e-6)
    for name, array in model_arrays(again).items():
        np.testing.assert_allclose(array, arrays[name], rtol=1e-6, err_msg=name)


def test_arrays_are_named_and_laid_out_without_a_framework() -> None:
    arrays = model_arrays(model())
    assert {"illumination/probe", "illumination/offset_px", "illumination/log_intensity"} < set(arrays)
    assert all(re.fullmatch(r"[a-z0-9_]+(/[a-zA-Z0-9_]+)+", name) for name in arrays)
    assert not any(word in name for name in arrays for word in (".", "module", "torch", "weight_orig"))
    assert arrays["illumination/probe"].shape == (2, 32, 32)
    assert arrays["illumination/probe"].dtype == np.complex64
    np.testing.assert_allclose(arrays["illumination/probe"], PROBE, atol=1e-6)  # the offset is not in it
    assert arrays["network/embed_pattern/weight"].shape == (8, 8, 1, 1)
    others = {name: array.dtype for name, array in arrays.items() if name != "illumination/probe"}
    assert set(others.values()) == {np.dtype(np.float32)}


def test_arrays_are_copies() -> None:
    made = model()
    arrays = model_arrays(made)
    before = arrays["network/embed_pattern/bias"].copy()
    with torch.no_grad():
        made.network.embed_pattern.bias.add_(1)
        made.illumination.offset_px += 1
    np.testing.assert_array_equal(arrays["network/embed_pattern/bias"], before)
    np.testing.assert_array_equal(arrays["illumination/offset_px"], np.array([1.25, -0.5], np.float32))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("illumination/probe", None, "lacks the tensor 'illumination/probe'"),
        ("illumination/log_intensity", None, "lacks the tensor 'illumination/log_intensity'"),
        ("illumination/probe", np.ones((32, 32), np.complex64), "N = 32 was expected"),
        ("illumination/probe", np.ones((1, 64, 64), np.complex64), r"\(1, 64, 64\).*N = 32 was expected"),
        ("illumination/offset_px", np.zeros(3, np.float32), r"\(3,\)"),
        ("network/mix/mix", None, "mix.mix"),
        ("network/head/0/bias", np.zeros(5, np.float32), "head.0.bias"),
        ("network/extra", np.zeros(5, np.float32), "extra"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, change: Any, message: str) -> None:
    """By name, with the remedy."""
    arrays = model_arrays(model())
    arrays.pop(name, None)
    if change is not None:
        arrays[name] = change
    with pytest.raises(ArchiveError, match=message) as caught:
        model_from_arrays(CONFIG, arrays, Precision.FLOAT32)
    assert "Save the model again" in caught.value.remedy


def test_arrays_of_another_configuration_are_refused() -> None:
    with pytest.raises(ArchiveError, match="do not fit its configuration"):
        model_from_arrays(CONFIG.model_copy(update={"iterations": 3}), model_arrays(model()), Precision.FLOAT32)
