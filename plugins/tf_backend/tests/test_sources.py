"""Which batches stay on the device, and which are read. Requirements: specs/10-training.md."""

from __future__ import annotations

import logging

import pytest
from backend_suite.objective import plan_of

from ptychopinn.arrays import NUMPY, ArrayLibrary
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.training.resident import ResidentGroups, resident_bytes
from ptychopinn.training.sources import MemoryBudget
from ptychopinn_tf.devices import Device
from ptychopinn_tf.options import TfOptions
from ptychopinn_tf.sources import StreamedBatches, choose_source, device_budget

CPU = "/CPU:0"


@pytest.mark.parametrize(
    ("simulated", "kept"),
    [("off", [ResidentGroups]), ("mixed", [ResidentGroups, StreamedBatches]), ("only", [StreamedBatches])],
)
def test_what_does_not_fit_is_read_batch_by_batch(
    scan: ScanDataset, caplog: pytest.LogCaptureFixture, simulated: str, kept: list[type]
) -> None:
    """[TRAIN-015] Which is logged; on a CPU that was asked for nothing it is as it always was."""
    plan = plan_of(scan, simulate_objects=simulated)
    groups, device = plan.training.batches.groups, Device(CPU, xla=False)

    def choose_parts(budget: MemoryBudget) -> list[type]:
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="ptychopinn"):
            loader = choose_source(plan.training, device, budget, 0)
        found = list(loader.batches(1))
        assert len(found) == len(plan.training.batches)
        assert len({tuple(sorted((name, tuple(t.shape)) for name, t in batch.tensors.items())) for batch in found}) == 1
        return [type(part) for part in loader.parts]

    assert choose_parts(device_budget(TfOptions(), device, NUMPY)) == [StreamedBatches]
    assert caplog.text == ""
    budget = device_budget(TfOptions(device_memory_budget_mb=1), device, NUMPY)
    assert choose_parts(budget) == kept
    assert budget.left == 2**20 - (0 if groups is None else resident_bytes(groups))
    budget.left = 1
    assert choose_parts(budget) == [StreamedBatches]
    assert ("are read batch by batch" in caplog.text) == (simulated != "only")


def test_a_gpus_budget_is_what_cupy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-015] Nothing, where there is no CuPy that knows."""

    class Cupy(ArrayLibrary):
        budget_bytes = 77

    device = Device(CPU, xla=False)
    monkeypatch.setattr(device, "name", "/GPU:0")
    budgets = [device_budget(TfOptions(), device, library) for library in (Cupy(NUMPY.xp), NUMPY)]
    assert [(budget.left, budget.in_use) for budget in budgets] == [(77, True), (0, True)]
    assert device_budget(TfOptions(device_memory_budget_mb=0), device, Cupy(NUMPY.xp)).left == 0
