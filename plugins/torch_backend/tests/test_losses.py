"""Loss terms: known values, what they do not see, and the whole objective."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.config.execution import Precision
from ptychopinn.data.batches import GroupBatches
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.data.truth import TruthPatches
from ptychopinn.training import EpochSource
from ptychopinn_torch.batches import EpochDataset, TensorBatch
from ptychopinn_torch.losses import COUNT_FLOOR, amplitude_error, patch_error, poisson_deviance, total_variation
from ptychopinn_torch.model import Illumination, Model
from ptychopinn_torch.objective import Objective, mean_gradient

GOOD = torch.ones(8, 8)


def counts(seed: int, mean: float = 50.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).gamma(2.0, mean / 2, (3, 8, 8)).astype(np.float32))


def complexes(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("loss", [poisson_deviance, amplitude_error])
def test_a_perfect_prediction_costs_nothing(loss: Any) -> None:
    """[LOSS-002]"""
    torch.testing.assert_close(loss(counts(0), counts(0), GOOD, 100.0), torch.zeros(3))
    assert (loss(counts(0), counts(1), GOOD, 100.0) > 0.1).all()


def test_known_deviance() -> None:
    """[LOSS-002]"""
    e, n = 3 + COUNT_FLOOR, 1 + COUNT_FLOOR
    found = poisson_deviance(torch.full((1, 8, 8), 3.0), torch.ones(1, 8, 8), GOOD, 200.0)
    assert found.item() == pytest.approx(64 * (e - n - n * math.log(e / n)) / 200, rel=1e-5)


def test_known_amplitude_error() -> None:
    found = amplitude_error(torch.full((1, 8, 8), 9.0), torch.full((1, 8, 8), 4.0), GOOD, 400.0)
    step = math.sqrt(9 + COUNT_FLOOR) - math.sqrt(4 + COUNT_FLOOR)
    assert found.item() == pytest.approx(64 * step / math.sqrt(400 * 64), rel=1e-5)


@pytest.mark.parametrize("loss", [poisson_deviance, amplitude_error])
def test_the_dose_does_not_move_a_loss(loss: Any) -> None:
    """Counts, prediction and their mean times anything: the same, but for the constant in dark pixels."""
    bright = loss(counts(0), counts(1), GOOD, 3200.0)
    for factor in (10.0, 1000.0):
        found = loss(factor * counts(0), factor * counts(1), GOOD, factor * 3200.0)
        torch.testing.assert_close(found, bright, rtol=0.02, atol=0)


@pytest.mark.parametrize("loss", [poisson_deviance, amplitude_error])
def test_bad_pixels_carry_no_loss(loss: Any) -> None:
    """[LOSS-003]"""
    good = GOOD.clone()
    good[2, 3:6] = 0
    expected, harmed = counts(0).requires_grad_(), counts(1)
    before = loss(expected, harmed, good, 100.0)
    harmed[:, 2, 3:6] = 1e6
    torch.testing.assert_close(loss(expected, harmed, good, 100.0), before)
    (gradient,) = torch.autograd.grad(before.sum(), expected)
    assert (gradient[:, 2, 3:6] == 0).all()
    assert (gradient[:, good.bool()] != 0).all()


@pytest.mark.parametrize("loss", [poisson_deviance, amplitude_error])
def test_dark_pixels_are_no_trouble(loss: Any) -> None:
    expected = torch.zeros(1, 8, 8, requires_grad=True)
    found = loss(expected, counts(0)[:1], GOOD, 100.0)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert expected.grad is not None
    assert torch.isfinite(expected.grad).all()


def test_total_variation_of_a_slope() -> None:
    rows = torch.arange(6.0)[:, None].expand(6, 6)
    assert total_variation((0.5j * rows).to(torch.complex64)).item() == pytest.approx(0.5)
    assert total_variation((2 * rows + 3 * rows.T).to(torch.complex64)).item() == pytest.approx(5)
    assert total_variation(torch.full((2, 6, 6), 3 + 1j)).tolist() == [0, 0]


def test_patch_error_does_not_see_a_patchs_phase() -> None:
    """[LOSS-004]"""
    truth, weights = complexes(0, 3, 8, 8), torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
    turn = torch.polar(torch.ones(3), torch.tensor([0.3, 2.0, -3.0]))[:, None, None]
    assert patch_error(truth * turn, truth, weights).max() < 1e-6
    other = complexes(1, 3, 8, 8)
    torch.testing.assert_close(patch_error(other * turn, truth, weights), patch_error(other, truth, weights))
    assert patch_error(other, truth, weights).min() > 0.5


def test_known_patch_error() -> None:
    truth, weights = torch.ones(1, 4, 4, dtype=torch.complex64), torch.ones(4, 4)
    assert patch_error(0.75 * truth, truth, weights).item() == pytest.approx(0.25)
    patches = truth.clone()
    patches[0, 0, 0] = 3  # only there
    weights[0, 0] = 0
    assert patch_error(patches, truth, weights).item() == 0
    weights[0, 0] = 5
    assert patch_error(patches, truth, weights).item() == pytest.approx(5 * 2 / 20)


def test_no_gradient_passes_through_the_phase() -> None:
    """The truth is turned as if its phase were a constant."""
    truth, weights = complexes(0, 1, 8, 8), torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
    prediction = complexes(1, 1, 8, 8).requires_grad_()
    patch_error(prediction, truth, weights).sum().backward()
    found = prediction.grad
    product = (prediction.detach() * truth.conj() * weights).sum()
    prediction.grad = None
    ((prediction - truth * product / product.abs()).abs() * weights).sum().div(weights.sum()).backward()
    torch.testing.assert_close(found, prediction.grad)


def test_patch_error_of_nothing_is_finite() -> None:
    nothing = torch.zeros(1, 8, 8, dtype=torch.complex64, requires_grad=True)
    found = patch_error(nothing, complexes(0, 1, 8, 8), torch.ones(8, 8))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert nothing.grad is not None
    assert torch.isfinite(torch.view_as_real(nothing.grad)).all()


def test_mean_gradient_of_a_ramp() -> None:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    ramp = torch.polar(1 + 0.2 * torch.rand(3, 16, 16), 0.2 * y - 0.1 * x)
    torch.testing.assert_close(mean_gradient(ramp, torch.ones(16, 16)), torch.tensor([0.2, -0.1]))
    bumpy = ramp * torch.polar(torch.ones(16, 16), 0.3 * torch.cos(y) * torch.hann_window(16))
    assert (mean_gradient(bumpy, torch.ones(16, 16)) - torch.tensor([0.2, -0.1])).abs().max() < 0.05


# The objective: which terms there are.


def objective_of(
    scan: ScanDataset, weights: dict[str, float], *, truth: bool = False
) -> tuple[Objective, TensorBatch, Any]:
    model_config = ModelConfig(N=32, n_filters_scale=0.1, iterations=1, group_size=4)
    config = TrainConfig(n_groups=2, batch_size=2, **weights)
    scaling = fit_scaling(scan)
    known = TruthPatches(scan, scan.probe, scaling.mean_counts, 16) if truth else None
    groups = GroupBatches(scan, model_config, config, known)
    torch.manual_seed(0)
    unit = scan.probe * np.float32(scaling.probe_scale / math.sqrt(scaling.mean_counts))
    model = Model(model_config, Illumination(unit, np.zeros(2)), Precision.FLOAT32)
    good = torch.from_numpy(np.fft.ifftshift(~scan.bad_pixels).astype(np.float32))
    objective = Objective(model_config, config.loss_weights(model_config), scaling.mean_counts, good, groups.reach)
    return objective, next(iter(EpochDataset(EpochSource(groups, None, 1, 0)))), model


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ({}, {"nll": 1.0}),
        ({"nll_weight": 2.0, "mae_weight": 0.5}, {"nll": 2.0, "mae": 0.5}),
        ({"nll_weight": 0.0, "mae_weight": 1.0, "realspace_weight": 3.0}, {"mae": 1.0, "total_variation": 3.0}),
        ({"nll_weight": 0.0, "realspace_mae_weight": 4.0}, {"realspace_mae": 4.0}),
    ],
)
def test_the_loss_is_the_weighted_sum_of_its_terms(
    scan: ScanDataset, weights: dict[str, float], parts: dict[str, float]
) -> None:
    """[LOSS-005]"""
    objective, batch, model = objective_of(scan, weights, truth="realspace_mae_weight" in weights)
    with torch.no_grad():
        terms = objective(model, batch)
    assert set(terms.parts) == set(parts)
    expected = sum(weight * float(terms.parts[name]) for name, weight in parts.items())
    assert float(terms.total) == pytest.approx(expected, rel=1e-5)
    assert all(float(value) > 0 for value in terms.parts.values())


def test_who_is_no_member_carries_no_loss(scan: ScanDataset) -> None:
    objective, batch, model = objective_of(scan, {"mae_weight": 1.0})
    assert batch.member is not None
    assert batch.counts is not None
    without = replace(batch, member=batch.member * torch.tensor([1.0, 1.0, 1.0, 0.0]))
    counts = batch.counts.clone()
    counts[:, 3] = 1e5

    def loss(given: TensorBatch) -> float:
        with torch.no_grad():
            return float(objective(model, given).total)

    assert loss(replace(without, counts=counts)) == pytest.approx(loss(without), rel=1e-5)
    assert loss(replace(batch, counts=counts)) != pytest.approx(loss(without), rel=1e-2)
    assert without.patterns == 6


def test_a_batch_without_its_parts_is_refused(scan: ScanDataset) -> None:
    objective, batch, model = objective_of(scan, {})
    with pytest.raises(TypeError, match="a measured batch has"):
        objective(model, TensorBatch(counts=batch.counts))
