"""Which batches stay on the device, and which are read. Requirements: specs/10-training.md."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.data.batches import GroupBatches
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.simulate import ObjectStream, ObjectStreamOptions
from ptychopinn.training import EpochSource
from ptychopinn.training.resident import ResidentGroups, resident_bytes
from ptychopinn.training.sources import Batch, BatchLoader, MemoryBudget
from ptychopinn_torch.batches import cut, to_tensor
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.simulation import SimulatedPatterns
from ptychopinn_torch.sources import StreamedBatches, choose_source, device_budget

CPU = torch.device("cpu")


def source(scan: ScanDataset, kind: str) -> EpochSource:
    config = TrainConfig(n_groups=5, batch_size=2).resolved(on_gpu=False)
    groups = GroupBatches(scan, ModelConfig(N=32, group_size=4), config)
    stream = ObjectStream(scan.probe, 1e4, scan.bad_pixels, 1, 16, ObjectStreamOptions(object_size_px=64, pool_size=2))
    return EpochSource(
        None if kind == "simulated" else groups, None if kind == "measured" else stream, groups.batches_per_epoch, 3
    )


def batches(scan: ScanDataset, kind: str, epoch: int = 0, workers: int = 0) -> list[Batch]:
    given = source(scan, kind)
    return list(BatchLoader([StreamedBatches(given, CPU)], len(given), workers).batches(epoch))


def same(a: Batch, b: Batch) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)


def test_arrays_become_tensors_without_a_copy() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = to_tensor(array)
    array[0, 0] = 9
    assert tensor[0, 0] == 9
    assert to_tensor(array.T).shape == (3, 2)


@pytest.mark.parametrize(("kind", "patterns"), [("measured", [8, 8, 4]), ("simulated", [3] * 3), ("both", [11, 11, 7])])
def test_an_epoch_has_its_batches(scan: ScanDataset, kind: str, patterns: list[int]) -> None:
    found = batches(scan, kind)
    assert [batch.patterns for batch in found] == patterns
    for batch in found:
        assert ("counts" in batch.tensors) == (kind != "simulated")
        assert ("simulated_counts" in batch.tensors) == (kind != "measured")
    if kind != "measured":
        counts, truth = (found[-1].tensors[name] for name in ("simulated_counts", "simulated_truth"))
        assert (counts.shape, counts.dtype) == ((3, 32, 32), torch.float32)
        assert (truth.shape, truth.dtype) == ((3, 16, 16), torch.complex64)
        # DC in the corner, where the light is
        assert counts[:, 0, 0].min() > counts[:, 16, 16].max()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_threads_give_the_same_batches_in_the_same_order(scan: ScanDataset, workers: int) -> None:
    for epoch in (0, 1, 4):
        alone, shared = (batches(scan, "both", epoch, count) for count in (0, workers))
        assert len(alone) == len(shared) == 3
        assert all(same(a, b) for a, b in zip(alone, shared, strict=True))
    assert not same(alone[0], batches(scan, "both", 0)[0])


def test_a_batch_is_cut_whole(scan: ScanDataset) -> None:
    batch = batches(scan, "both")[0]
    assert cut(batch.tensors, 1) == [batch.tensors]
    parts = cut(batch.tensors, 2)
    for name, tensor in batch.tensors.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), tensor)
    assert batch.size == 2
    assert batches(scan, "simulated")[0].size == 3


@pytest.mark.parametrize("kind", ["measured", "simulated", "both"])
def test_what_does_not_fit_is_read_batch_by_batch(
    scan: ScanDataset, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """[TRAIN-015] Which is logged; on a CPU that was asked for nothing it is as it always was."""
    given = source(scan, kind)

    def choose_parts(budget: MemoryBudget) -> set[type]:
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="ptychopinn"):
            loader = choose_source(given, CPU, budget, 0)
        assert len(list(loader.batches(0))) == len(given)
        return {type(part) for part in loader.parts}

    assert choose_parts(device_budget(TorchOptions(), CPU)) == {StreamedBatches}
    assert caplog.text == ""
    kept = {"measured": {ResidentGroups}, "simulated": {SimulatedPatterns}, "both": {ResidentGroups, SimulatedPatterns}}
    budget = device_budget(TorchOptions(device_memory_budget_mb=9), CPU)
    assert choose_parts(budget) == kept[kind]
    scan_bytes = 0 if given.groups is None else resident_bytes(given.groups)
    pool_bytes = 0 if given.stream is None else SimulatedPatterns.bytes_of(given.stream)
    assert budget.left == 9 * 2**20 - scan_bytes - pool_bytes
    assert ("stay on torch on cpu" in caplog.text) == (kind != "simulated")
    budget.left = 1
    assert choose_parts(budget) == {StreamedBatches}
    assert ("are read batch by batch" in caplog.text) == (kind != "simulated")

    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("ptychopinn.training.resident.ResidentGroups.__init__", full)
    expected = {"measured": {StreamedBatches}, "both": {StreamedBatches, SimulatedPatterns}}
    if kind in expected:
        assert choose_parts(device_budget(TorchOptions(device_memory_budget_mb=9), CPU)) == expected[kind]


def test_half_of_a_gpus_free_memory_is_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10_000, 99_999))
    assert device_budget(TorchOptions(), torch.device("cuda", 0)).left == 5_000
    assert device_budget(TorchOptions(device_memory_budget_mb=0), torch.device("cuda", 0)).left == 0
