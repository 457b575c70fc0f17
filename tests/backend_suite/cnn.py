"""The published network: shapes, borders, groups. Requirements: specs/10-training.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from backend_suite.fits import Fit, patches_of
from backend_suite.ops import Ops
from ptychopinn.config import ModelConfig
from ptychopinn.config.execution import Precision
from ptychopinn.config.model import SUPPORTED_N
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ConfigError
from ptychopinn.simulate import simulate_probe
from ptychopinn.typing import ComplexArray, FloatArray

CNN: Mapping[str, Any] = {"architecture": "cnn", "iterations": None, "n_filters_scale": 0.5}
Predict = Callable[..., ComplexArray]


def groups(N: int, C: int, count: int = 2) -> FloatArray:
    """Amplitudes of groups, (count, C, N, N) float32."""
    return np.random.default_rng(1).gamma(0.5, 1.0, (count, C, N, N)).astype(np.float32)


@pytest.fixture
def predict(ops: Ops) -> Predict:
    """The patches of groups, from a network whose weights are all random."""

    def run(given: FloatArray, **config: Any) -> ComplexArray:
        N = given.shape[-1]
        settings = ModelConfig(**{"N": N, "group_size": given.shape[1], **CNN, **config})
        probe = simulate_probe("disc", N, photons=1.0)
        fresh = ops.model.model_arrays(ops.build(settings, probe, np.zeros(2)))
        rng = np.random.default_rng(0)
        arrays = {
            name: array
            if name.startswith("illumination/")
            else (rng.standard_normal(array.shape) * (2 / max(1, np.prod(array.shape[1:]))) ** 0.5).astype(np.float32)
            for name, array in fresh.items()
        }
        made = ops.filled(settings, arrays, Precision.FLOAT32)
        return ops.run(lambda amplitudes: made.network(amplitudes, None), given)

    return run


@pytest.mark.parametrize("N", SUPPORTED_N)
@pytest.mark.parametrize("gridsize", [1, 2, 3])
def test_every_size_and_gridsize(predict: Predict, N: int, gridsize: int) -> None:
    """[CNN-001] [PATCH-001] [PATCH-002] [PATCH-003] (g, C, N, N) to (g, P, n, n) complex64, finite."""
    given = groups(N, gridsize**2)
    for config, patches, n in (
        ({}, gridsize**2, N // 2),
        ({"pad_object": False}, gridsize**2, N),
        ({"probe_big": True}, gridsize**2, N),
        ({"object_big": False}, 1, N // 2),
    ):
        found = predict(given, **config)
        assert found.shape == (2, patches, n, n)
        assert found.dtype == np.complex64
        assert np.isfinite(found).all()
        assert not np.allclose(found[0], found[1], atol=1e-3)


def test_the_published_number_of_weights(ops: Ops) -> None:
    """[CNN-002] and the filters of each size."""

    def shapes(N: int) -> dict[str, tuple[int, ...]]:
        config = ModelConfig(N=N, architecture="cnn", gridsize=1)
        arrays = ops.model.model_arrays(ops.build(config, simulate_probe("disc", N, photons=1.0), np.zeros(2)))
        return {name: array.shape for name, array in arrays.items() if name.startswith("network/")}

    weights = sum(int(np.prod(shape)) for shape in shapes(64).values())
    assert weights == pytest.approx(2.24e6, rel=0.01)
    for N, filters in ((64, [64, 128, 256]), (128, [32, 64, 128, 256]), (256, [16, 32, 64, 128, 256])):
        found = [shapes(N)[f"network/encoder/{k}/conv1/weight"] for k in range(len(filters))]
        assert [shape[0] for shape in found] == filters
        assert [shape[1] for shape in found] == [1, *filters[:-1]]


def test_a_patch_sees_its_whole_group_and_no_other(predict: Predict) -> None:
    """[CNN-001]"""
    given = groups(32, 4, count=3)
    base = predict(given)
    given[0, 3] *= 2
    changed = predict(given)
    assert (np.abs(changed[0] - base[0]).max(axis=(1, 2)) > 1e-3).all()
    np.testing.assert_allclose(changed[1:], base[1:], atol=2e-5)


def test_the_border_is_coarse_and_the_centre_is_not(predict: Predict) -> None:
    """[PATCH-002]"""
    found = predict(groups(32, 1), probe_big=True)[:, 0]
    centre = found[:, 8:24, 8:24].copy()

    def roughness(patch: ComplexArray) -> float:
        """Differences inside blocks of two pixels over all differences."""
        return float(np.abs(patch[..., 1::2] - patch[..., ::2]).mean() / np.abs(np.diff(patch)).mean())

    assert roughness(centre) > 0.5
    assert np.abs(found[:, :8]).max() > 0
    assert not np.allclose(found[:, 7, 8:24], found[:, 8, 8:24], atol=1e-4)


@pytest.mark.parametrize("model_type", ["pinn", "supervised"])
@pytest.mark.parametrize(
    "config", [{"gridsize": 1}, {"gridsize": 2}, {"gridsize": 3}, {"probe_big": True}, {"object_big": False}], ids=str
)
def test_it_learns(fit: Fit, scan: ScanDataset, model_type: str, config: dict[str, Any]) -> None:
    """[CNN-001] The loss falls, and every pattern gets its patch whatever the batch size."""
    model = {**CNN, "group_size": None, "model_type": model_type, **config}
    trained = fit(model=model, train={"nepochs": 20, "n_groups": 16, "batch_size": 4, "learning_rate": 3e-3})
    loss = trained.result.history["loss"]
    assert loss[-1] < 0.9 * loss[0]
    found = [patches_of(trained.reconstructor, scan, inference_batch_size=size) for size in (1, 7, 64)]
    assert len(found[0]) == len(scan)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_scans_smaller_than_a_group(fit: Fit, scan: ScanDataset, count: int) -> None:
    """[CNN-001]"""
    trained = fit(model={**CNN, "group_size": None, "gridsize": 2})
    found = patches_of(trained.reconstructor, scan.select(np.arange(count)))
    assert found.shape == (count, 16, 16)
    assert np.isfinite(found).all()


def test_settings_that_cannot_act_are_refused(fit: Fit) -> None:
    """[CNN-003]"""
    with pytest.raises(ConfigError, match="simulate_objects makes single patterns"):
        fit(model={**CNN, "group_size": 4}, train={"simulate_objects": "mixed"})
    with pytest.raises(ConfigError, match="detector_offset train moves the probe at every step"):
        fit(model={**CNN, "group_size": 4}, train={"detector_offset": "train"})
    fit(model={**CNN, "group_size": 1}, train={"simulate_objects": "mixed"})
