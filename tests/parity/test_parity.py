"""PyTorch and TensorFlow compute the same. Requirements: specs/11-conformance.md. Both must be installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from ptychopinn.bundle import read_bundle
from ptychopinn.plugins import discover, missing_requirements
from ptychopinn.testing import CrossBackendConformance

pytest.importorskip("resource", reason="the benchmark measures memory by it")
import parity

FAST = {"n_filters_scale": 0.2, "iterations": 2, "group_size": 4}
CNN = {"architecture": "cnn", "n_filters_scale": 0.25}
# Name to what differs from a tiny model of N = 32.
CASES: dict[str, dict[str, Any]] = {
    **{f"fast {N}": {"N": N, **FAST} for N in (32, 64, 128, 256)},
    "fast supervised": {"model_type": "supervised", "amp_activation": "softplus", **FAST},
    "fast, whole patches": {"pad_object": False, "object_big": False, "gaussian_smoothing_sigma": 0.5, **FAST},
    **{f"cnn {N}": {"N": N, "gridsize": 2, **CNN} for N in (32, 64, 128, 256)},
    "cnn supervised": {"model_type": "supervised", "gridsize": 1, "amp_activation": "exp", **CNN},
    "cnn, border": {"probe_big": True, "gridsize": 3, **CNN},
}
Figures = dict[str, dict[str, float]]


@pytest.fixture(scope="module", autouse=True)
def both_installed() -> None:
    specs = discover().specs
    for name in parity.PAIR:
        if name not in specs or missing_requirements(specs[name]):
            pytest.skip(f"the backend '{name}' is not installed")


class TestArchives(CrossBackendConformance):
    """Train in one, predict in the other."""

    pair = parity.PAIR
    model: ClassVar[Mapping[str, Any]] = FAST
    train: ClassVar[Mapping[str, Any]] = {"learning_rate": 0.01}
    options: ClassVar[Mapping[str, Any]] = {"accelerator": "cpu"}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory, both_installed: None) -> Figures:
    """Of all cases: each framework is loaded twice only."""
    cases = {
        name: ({"N": model.get("N", 32), "rows": 4, "cols": 4, "seed": 1}, {"N": 32, **model})
        for name, model in CASES.items()
    }
    return parity.agreement(tmp_path_factory.mktemp("parity"), cases)


@pytest.mark.xdist_group("agreement")
@pytest.mark.parametrize("case", CASES)
def test_they_agree(figures: Figures, case: str) -> None:
    """[CONF-062] Predictions both ways, loss and gradients of the same batch, ten steps from the same weights."""
    found = figures[case]
    assert found.keys() == parity.LIMITS.keys()
    assert {name: figure for name, figure in found.items() if not figure <= parity.LIMITS[name]} == {}


def test_a_training_with_everything_in_it_agrees(tmp_path: Path) -> None:
    """[CONF-062] Smaller last batches, accumulation that does not divide them, clipping, simulated patterns, an offset
    that is followed, validation, and the averaged weights that an archive holds."""
    scan = {"N": 32, "rows": 6, "cols": 6, "seed": 1, "detector_offset_px": (1.5, -1.0)}
    begun = {"scan": scan, "model": {"N": 32, **FAST}, "train": parity.INITIAL, "save": str(tmp_path / "begun")}
    parity.in_own_process(tmp_path, "torch", begun)
    train = {
        **{"nepochs": 8, "n_groups": 7, "batch_size": 2, "accumulate_grad_batches": 3, "gradient_clip": 0.05},
        **{"simulate_objects": "mixed", "validation_fraction": 0.3, "learning_rate": 0.01, "mae_weight": 0.1},
    }
    found = {}
    for backend in parity.PAIR:
        ended = tmp_path / f"{backend}.zip"
        task = {"scan": scan, "load": str(tmp_path / "begun"), "train": train, "save": str(ended)}
        (figures,) = parity.in_own_process(tmp_path, backend, task)
        found[backend] = figures, read_bundle(ended).weights
    (one, weights), (two, others) = (found[backend] for backend in parity.PAIR)
    names = {name for name in one if name.startswith("history/")} - {"history/seconds"}
    assert {"history/validation_loss", "history/simulated", "history/nll"} <= names
    for name in names:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, err_msg=name)
    assert weights.keys() == others.keys()
    for name, array in weights.items():
        np.testing.assert_allclose(others[name], array, atol=2e-4, err_msg=name)


def test_neither_process_loads_the_others_framework(tmp_path: Any) -> None:
    """[CONF-062] And the figures would show a difference: another activation is another network."""
    scan = {"N": 32, "rows": 4, "cols": 4}
    train = {"nepochs": 2, "probe_refinement": 0, "learning_rate": 0.02}
    for backend, own, others in (
        ("torch", {"torch", "lightning_fabric"}, {"tensorflow", "keras"}),
        ("tf", {"tensorflow"}, {"torch", "lightning_fabric"}),
    ):
        models = [{"N": 32, "amp_activation": activation, **FAST} for activation in ("bounded", "exp")]
        tasks = [{"scan": scan, "model": model, "train": train, "predict": 1} for model in models]
        one, other = parity.in_own_process(tmp_path, backend, *tasks)
        assert own <= set(one["frameworks"])
        assert not others & set(other["frameworks"])
        assert (
            parity.largest_pixel_difference(one["patches"], other["patches"])
            > 10 * parity.LIMITS["patches, torch to tf"]
        )
        losses = parity.loss_differences(one["history/loss"], other["history/loss"])
        assert losses["loss within ten steps"] > parity.LIMITS["loss within ten steps"]
        assert np.isfinite(one["patches"]).all()
