"""The objective of the core with a framework's operations, physics and network. Requirements: specs/10-training.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from backend_suite.ops import Ops
from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.training import TrainingPlan
from ptychopinn.training.objective import LossTerms, offset_step
from ptychopinn.training.optimizer import OFFSET_RATE
from ptychopinn.training.plan import make_plan
from ptychopinn.training.shares import loss_shares
from ptychopinn.typing import AnyArray, ComplexArray

EVERY_TERM = {"mae_weight": 0.5, "realspace_weight": 0.5, "realspace_mae_weight": 0.5, "simulate_objects": "mixed"}


def unit_probe(scan: ScanDataset) -> ComplexArray:
    """(modes, N, N) complex64 in root mean counts."""
    scaling = fit_scaling(scan)
    probe: ComplexArray = scan.probe * np.float32(scaling.probe_scale / math.sqrt(scaling.mean_counts))
    return probe


def plan_of(scan: ScanDataset, model: dict[str, Any] | None = None, **train: Any) -> TrainingPlan:
    """Batches of two groups and of one; as many simulated patterns as those would have."""
    config = TrainConfig(**{"n_groups": 3, "batch_size": 2, **train}).resolved(on_gpu=False)
    tiny = ModelConfig(**{"N": 32, "n_filters_scale": 0.1, "iterations": 1, "group_size": 4, **(model or {})})
    return make_plan(tiny, config, scan, None, unit_probe(scan))


def terms_of(ops: Ops, plan: TrainingPlan, scan: ScanDataset, arrays: dict[str, AnyArray]) -> LossTerms:
    """As arrays."""
    model = ops.build(plan.model, unit_probe(scan), np.zeros(2))
    return ops.objective(plan)(model, {name: ops.tensor(array) for name, array in arrays.items()}).map(ops.array)


def first_batch(plan: TrainingPlan) -> dict[str, AnyArray]:
    """The first batch of the first epoch: names of arrays to arrays of (groups, members, ...)."""
    return next(iter(plan.training.batches(0)))


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
    ops: Ops, scan: ScanDataset, weights: dict[str, Any], parts: dict[str, float]
) -> None:
    """[LOSS-005]"""
    plan = plan_of(scan, **weights)
    terms = terms_of(ops, plan, scan, first_batch(plan))
    assert set(terms.parts) == set(parts) == set(plan.figures) - {"loss"}
    expected = sum(weight * float(terms.parts[name]) for name, weight in parts.items())
    assert float(terms.total) == pytest.approx(expected, rel=1e-5)
    assert all(float(value) > 0 for value in terms.parts.values())


def test_who_is_no_member_carries_no_loss(ops: Ops, scan: ScanDataset) -> None:
    plan = plan_of(scan, mae_weight=1.0)
    arrays = first_batch(plan)
    without = {**arrays, "member": arrays["member"] * np.array([1, 1, 1, 0], np.float32)}
    without |= loss_shares(without)
    harmed = arrays["counts"].copy()
    harmed[:, 3] = 1e5

    def loss(changed: dict[str, AnyArray]) -> float:
        return float(terms_of(ops, plan, scan, changed).total)

    assert loss({**without, "counts": harmed}) == pytest.approx(loss(without), rel=1e-5)
    assert loss({**arrays, "counts": harmed}) != pytest.approx(loss(without), rel=1e-2)


@pytest.mark.parametrize("model", [{}, {"object_big": False}])
def test_the_terms_of_parts_add_up(ops: Ops, off_centre: ScanDataset, model: dict[str, Any]) -> None:
    """[LOSS-006] Also where a group has fewer members than another, and with the products for the detector's offset."""
    plan = plan_of(off_centre, model, **EVERY_TERM)
    assert plan.follow_offset
    arrays = first_batch(plan)
    arrays["member"][1, 2:] = 0
    arrays |= loss_shares(arrays)
    patterns = len(arrays["simulated_counts"])
    cuts = [{k: v[:1] if len(v) == 2 else v[:3] for k, v in arrays.items()}]
    cuts += [{k: v[1:] if len(v) == 2 else v[3:] for k, v in arrays.items()}]
    assert [len(cut["simulated_counts"]) for cut in cuts] == [3, patterns - 3]
    whole, *parts = (terms_of(ops, plan, off_centre, given) for given in (arrays, *cuts))
    added = parts[0].map(lambda one, other: one + other, parts[1])
    assert set(added.parts) == {"nll", "mae", "total_variation", "realspace_mae", "simulated"}
    for name, value in whole.parts.items():
        assert float(added.parts[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-8), name
    assert float(added.total) == pytest.approx(float(whole.total), rel=1e-5)
    for found, expected in zip(added.products, whole.products, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("model", "of_patches"), [({}, "members"), ({"object_big": False}, "groups")])
def test_terms_are_means_over_members_or_groups(
    ops: Ops, scan: ScanDataset, model: dict[str, Any], of_patches: str
) -> None:
    """[LOSS-006] What the batch has is the mean of what each group alone has."""
    plan = plan_of(scan, model, **{**EVERY_TERM, "simulate_objects": "off"})
    arrays = first_batch(plan)
    arrays["member"][1, 2:] = 0
    assert arrays["member"].sum(axis=1).tolist() == [4, 2]
    alone = [{name: array[k : k + 1] for name, array in arrays.items()} for k in range(2)]
    whole, *groups = (terms_of(ops, plan, scan, given | loss_shares(given)) for given in (arrays, *alone))
    means = {"members": [4, 2], "groups": [1, 1]}
    over = {"nll": "members", "mae": "members", "total_variation": "groups", "realspace_mae": of_patches}
    assert set(whole.parts) == set(over)
    for name, kind in over.items():
        expected = np.average([float(terms.parts[name]) for terms in groups], weights=means[kind])
        assert float(whole.parts[name]) == pytest.approx(expected, rel=1e-5, abs=1e-8), name


def test_products_are_made_where_the_offset_follows_them(ops: Ops, scan: ScanDataset, off_centre: ScanDataset) -> None:
    for data, number in ((scan, 0), (off_centre, 2)):
        plan = plan_of(data)
        assert len(terms_of(ops, plan, data, first_batch(plan)).products) == number


def test_the_offset_moves_by_a_share_of_the_mean_phase_gradient(ops: Ops) -> None:
    """[PROBE-003] A gradient of 2 pi / N rad a pixel is a pixel of the detector."""
    step = 2 * np.pi / 32
    products = tuple(ops.tensor(7 * np.array([np.cos(a), np.sin(a)], np.float32)) for a in (step, -2 * step))
    found = ops.array(offset_step(ops.operations, products, 32))
    np.testing.assert_allclose(found, [OFFSET_RATE, -2 * OFFSET_RATE], rtol=1e-5)


def test_every_simulated_pattern_may_have_a_probe_of_its_own(ops: Ops, scan: ScanDataset) -> None:
    """[TRAIN-011] The loss is the mean of those of the patterns alone, each with its probe."""
    plan = plan_of(scan, simulate_objects="only", simulate_probes="around", batch_size=1, n_groups=1)
    arrays = first_batch(plan)
    count = len(arrays["simulated_counts"])
    turned = np.stack([np.roll(probe, k, axis=-1) for k, probe in enumerate(arrays["simulated_probe"])])
    losses = []
    for k in range(count):
        one = {name: array[k : k + 1] for name, array in {**arrays, "simulated_probe": turned}.items()}
        one |= loss_shares(one)
        losses.append(float(terms_of(ops, plan, scan, one).total))
    own = float(terms_of(ops, plan, scan, {**arrays, "simulated_probe": turned}).total)
    assert own == pytest.approx(np.mean(losses), rel=1e-5)
    assert own != pytest.approx(float(terms_of(ops, plan, scan, arrays).total), rel=1e-3)


class Stub:
    """A model whose patches hang on what it is told of the light, if asked to."""

    def __init__(self, ops: Ops, patches: Any, probe: Any, *, looks: bool) -> None:
        self._ops, self._patches, self._probe, self._looks = ops, patches, probe, looks

    def illumination(self) -> Any:
        """The probe that the stub was given."""
        return self._probe

    def prepare_probe(self, probe: Any, good: Any) -> Any:
        """The sum of the probe if the stub looks at it, else 1."""
        operations = self._ops.operations
        return operations.as_complex(operations.sum(abs(probe))) if self._looks else 1.0

    def __call__(self, counts: Any, mean_counts: float, sampled_probes: Any) -> Any:
        return self._patches[: counts.shape[0], : counts.shape[1]] * sampled_probes


@pytest.mark.parametrize(("objects", "flows"), [("off", True), ("only", False)])
def test_gradients_reach_the_probe_through_the_physics_of_measured_patterns_alone(
    ops: Ops, scan: ScanDataset, objects: str, flows: bool
) -> None:
    """[PROBE-004] Neither through what the network is told of it, nor from simulated patterns."""
    plan = plan_of(scan, simulate_objects=objects)
    batch = {name: ops.tensor(array) for name, array in first_batch(plan).items()}
    rng = np.random.default_rng(0)
    patches = (1 + 0.1 * rng.standard_normal((8, 4, 16, 16))).astype(np.complex64)
    light = unit_probe(scan)
    size = np.float32(np.abs(light).sum())

    def gradient(given: ComplexArray, *, looks: bool) -> AnyArray:
        def total(probe: Any) -> Any:
            return ops.objective(plan)(Stub(ops, ops.tensor(given), probe, looks=looks), batch).total

        return ops.gradients(total, light)[0]

    found = gradient(patches / size, looks=True)
    expected = gradient(patches, looks=False)
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(np.abs(expected).max(), 1e-6))
    assert expected.any() == flows
