"""What a training works on. Requirements: specs/10-training.md."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptychopinn.config import ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ConfigError
from ptychopinn.simulate import simulate_scan
from ptychopinn.training.plan import TrainingPlan, make_plan, training_scans

N = 32
MODEL = ModelConfig(N=N)


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=8, cols=8))


def plan_of(scan: ScanDataset, **train: Any) -> TrainingPlan:
    config = TrainConfig(**train).resolved(on_gpu=False)
    data, validation = training_scans(scan, None, config, MODEL)
    return make_plan(MODEL, config, data, validation, scan.probe)


@pytest.mark.parametrize("n_groups", [1, 5000, None])
def test_validation_looks_at_each_of_its_patterns_about_once(scan: ScanDataset, n_groups: int | None) -> None:
    """[TRAIN-004] n_groups is how many are trained on."""
    plan = plan_of(scan, n_groups=n_groups, validation_fraction=0.3, batch_size=1)
    assert plan.validation is not None
    assert plan.training.groups.n_groups == n_groups or n_groups is None
    assert len(plan.validation.batches) == 3  # 19 patterns, 8 a group


def test_a_validation_without_a_whole_group_is_refused(scan: ScanDataset) -> None:
    """[TRAIN-004] before any work, and what would do does."""
    with pytest.raises(ConfigError, match=r"validation_fraction 0\.1 holds back 6 of 64 patterns.*needs 8") as caught:
        plan_of(scan, validation_fraction=0.1)
    assert "validation_fraction to 0.13 or more" in caught.value.remedy
    assert "group_size to 6 or less" in caught.value.remedy
    assert plan_of(scan, validation_fraction=0.13).validation is not None
    few = scan.select(np.arange(12))
    with pytest.raises(ConfigError, match="validation_fraction") as caught:
        training_scans(few, None, TrainConfig(validation_fraction=0.1), MODEL)
    assert "or more" not in caught.value.remedy  # it is at most 0.5
    one_each = scan.select(np.arange(20))
    with pytest.raises(ConfigError, match=r"validation scan .* has 5 patterns.*needs 8.*group_size to 5"):
        training_scans(one_each, scan.select(np.arange(5)), TrainConfig(), MODEL)


def test_what_cannot_be_trained_on_is_refused_before_any_work(scan: ScanDataset) -> None:
    """[TRAIN-001] [TRAIN-004]"""
    with pytest.raises(ConfigError, match="A group has 8 patterns, but the largest scan has 5"):
        training_scans(scan.select(np.arange(5)), None, TrainConfig(), MODEL)
    with pytest.raises(ConfigError, match="neighbor_count is 3"):
        training_scans(scan, None, TrainConfig(neighbor_count=3), MODEL)
    with pytest.raises(ConfigError, match=r"validation_fraction is 0\.3, and a scan"):
        training_scans(scan, scan, TrainConfig(validation_fraction=0.3), MODEL)


@pytest.mark.parametrize(("batch_size", "batches"), [(4, 32), (64, 8), (1024, 1)])
def test_large_batches_get_new_objects_sooner(scan: ScanDataset, batch_size: int, batches: int) -> None:
    """[SIM-048]"""
    plan = plan_of(scan, simulate_objects="only", batch_size=batch_size)
    stream = plan.training.batches.stream
    assert stream is not None
    before, after = (stream.objects.numbers(step).stop for step in (batches - 1, batches))
    assert after == before + 1
    assert plan.training.batches.simulated_patterns == batch_size * plan.model.patterns_per_group
