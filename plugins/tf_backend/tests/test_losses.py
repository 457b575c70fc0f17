"""Loss terms (`backend_suite.losses`), and the objective that weighs them. Requirements: specs/10-training.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from backend_suite.losses import *  # noqa: F403
from backend_suite.ops import Ops

from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.config.execution import Precision
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.training import TrainingPlan
from ptychopinn.training.plan import make_plan
from ptychopinn_tf.batches import TensorBatch, tensor_batches
from ptychopinn_tf.model import Illumination, Model
from ptychopinn_tf.objective import Objective, Terms, neighbour_products


def test_neighbour_products_of_a_ramp_have_its_slope(ops: Ops) -> None:
    """Weighted, and without the groups that only fill a batch up."""
    y, x = np.indices((16, 16))
    modulus = 1 + 0.2 * np.random.default_rng(0).random((2, 3, 16, 16))
    ramp = (modulus * np.exp(1j * (0.2 * y - 0.1 * x))).astype(np.complex64)
    ramp[1] = np.exp(-1j * y)
    weights = np.ones((2, 3, 16, 16), np.float32) * np.array([1, 0], np.float32)[:, None, None, None]
    real, imag = ops.run(neighbour_products, ramp, weights).T
    np.testing.assert_allclose(np.arctan2(imag, real), [0.2, -0.1], atol=1e-5)
    assert real[0] == pytest.approx(np.abs(ramp[0, :, 1:] * ramp[0, :, :-1]).sum() * np.cos(0.2), rel=1e-4)


def plan_of(scan: ScanDataset, **train: Any) -> TrainingPlan:
    config = TrainConfig(n_groups=3, batch_size=2, **train)
    model = ModelConfig(N=32, n_filters_scale=0.1, iterations=1, group_size=4)
    scaling = fit_scaling(scan)
    return make_plan(model, config, scan, None, scan.probe * np.float32(scaling.probe_scale / scaling.mean_counts**0.5))


def loss_of(plan: TrainingPlan, scan: ScanDataset, *parts: TensorBatch) -> list[Terms]:
    unit = scan.probe * np.float32(plan.training.scaling.probe_scale / math.sqrt(plan.training.scaling.mean_counts))
    model = Model(plan.model, Illumination(unit, np.zeros(2)), Precision.FLOAT32)
    objective = Objective(plan, plan.training)
    return [objective(model, part) for part in parts]


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ({}, {"nll": 1.0}),
        ({"nll_weight": 2.0, "mae_weight": 0.5}, {"nll": 2.0, "mae": 0.5}),
        ({"nll_weight": 0.0, "mae_weight": 1.0, "realspace_weight": 3.0}, {"mae": 1.0, "total_variation": 3.0}),
        ({"nll_weight": 0.0, "realspace_mae_weight": 4.0}, {"realspace_mae": 4.0}),
        ({"simulate_objects": "mixed"}, {"nll": 1.0, "simulated": 1.0}),
        ({"simulate_objects": "only"}, {"simulated": 1.0}),
    ],
)
def test_the_loss_is_the_weighted_sum_of_its_terms(
    scan: ScanDataset, weights: dict[str, Any], parts: dict[str, float]
) -> None:
    """[LOSS-005]"""
    plan = plan_of(scan, **weights)
    (batch,) = tensor_batches(next(iter(plan.training.batches(0))), 2, 1)
    (terms,) = loss_of(plan, scan, batch)
    assert set(terms.parts) == set(parts) == set(plan.figures) - {"loss"}
    expected = sum(weight * float(terms.parts[name]) for name, weight in parts.items())
    assert float(terms.total) == pytest.approx(expected, rel=1e-5)
    assert all(float(value) > 0 for value in terms.parts.values())


EVERY_TERM = {"mae_weight": 0.5, "realspace_weight": 0.5, "realspace_mae_weight": 0.5, "simulate_objects": "mixed"}


@pytest.mark.parametrize(("groups", "devices"), [(5, 1), (2, 2), (3, 2), (2, 3)])
def test_filling_up_and_splitting_change_nothing(scan: ScanDataset, groups: int, devices: int) -> None:
    """The last batch of an epoch has one group; devices share a batch, unevenly too."""
    plan = plan_of(scan, **EVERY_TERM)
    for arrays in plan.training.batches(0):
        (whole,) = loss_of(plan, scan, *tensor_batches(arrays, len(arrays["counts"]), 1))
        parts = loss_of(plan, scan, *tensor_batches(arrays, groups, devices))
        assert len(parts) == devices
        for name, value in whole.parts.items():
            assert sum(float(p.parts[name]) for p in parts) == pytest.approx(float(value), rel=1e-5), name
        products = sum(np.asarray(p.products) for p in parts)
        np.testing.assert_allclose(products, whole.products, rtol=1e-4, atol=1e-2)


def test_who_is_no_member_carries_no_loss(scan: ScanDataset) -> None:
    plan = plan_of(scan, mae_weight=1.0)
    arrays = next(iter(plan.training.batches(0)))
    without = {**arrays, "member": arrays["member"] * np.array([1, 1, 1, 0], np.float32)}
    harmed = arrays["counts"].copy()
    harmed[:, 3] = 1e5

    def loss(changes: dict[str, Any]) -> float:
        return float(loss_of(plan, scan, *tensor_batches(changes, 2, 1))[0].total)

    assert loss({**without, "counts": harmed}) == pytest.approx(loss(without), rel=1e-5)
    assert loss({**arrays, "counts": harmed}) != pytest.approx(loss(without), rel=1e-2)
