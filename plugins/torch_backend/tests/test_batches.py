"""Batches as tensors, measured and simulated, from one thread or several."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.data.batches import GroupBatches
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.simulate import ObjectStream, ObjectStreamOptions
from ptychopinn.training import EpochSource
from ptychopinn_torch.batches import TensorBatch, to_tensor
from ptychopinn_torch.sources import StreamedBatches


def source(scan: ScanDataset, kind: str) -> EpochSource:
    config = TrainConfig(n_groups=5, batch_size=2).resolved(on_gpu=False)
    groups = GroupBatches(scan, ModelConfig(N=32, group_size=4), config)
    stream = ObjectStream(scan.probe, 1e4, scan.bad_pixels, 1, 16, ObjectStreamOptions(object_size_px=64, pool_size=2))
    return EpochSource(
        None if kind == "simulated" else groups, None if kind == "measured" else stream, groups.batches_per_epoch, 3
    )


def batches(scan: ScanDataset, kind: str, epoch: int = 0, workers: int = 0) -> list[TensorBatch]:
    return list(StreamedBatches(source(scan, kind), torch.device("cpu"), workers).batches(epoch))


def same(a: TensorBatch, b: TensorBatch) -> bool:
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
    assert batch.cut(1) == [batch.tensors]
    parts = batch.cut(2)
    for name, tensor in batch.tensors.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), tensor)
    assert batch.size == 2
    assert batches(scan, "simulated")[0].size == 3
