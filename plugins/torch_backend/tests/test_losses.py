"""Loss terms (`backend_suite.losses`), and the objective that weighs them. Requirements: specs/10-training.md."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from backend_suite.losses import *  # noqa: F403

from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.config.execution import Precision
from ptychopinn.data.batches import GroupBatches
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.data.truth import TruthPatches
from ptychopinn.training import EpochSource
from ptychopinn_torch.batches import EpochDataset, TensorBatch
from ptychopinn_torch.model import Illumination, Model
from ptychopinn_torch.objective import Objective, neighbour_products


def test_neighbour_products_of_a_ramp_have_its_slope() -> None:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    ramp = torch.polar(1 + 0.2 * torch.rand(3, 16, 16), 0.2 * y - 0.1 * x)
    torch.testing.assert_close(neighbour_products(ramp, torch.ones(16, 16)).angle(), torch.tensor([0.2, -0.1]))
    bumpy = ramp * torch.polar(torch.ones(16, 16), 0.3 * torch.cos(y) * torch.hann_window(16))
    assert (neighbour_products(bumpy, torch.ones(16, 16)).angle() - torch.tensor([0.2, -0.1])).abs().max() < 0.05


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
