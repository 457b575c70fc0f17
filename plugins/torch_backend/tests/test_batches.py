"""Batches as tensors, measured and simulated, from one process or several."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.data.batches import GroupBatches
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.simulate import ObjectStream
from ptychopinn.training import EpochSource
from ptychopinn_torch.batches import EpochDataset, TensorBatch, loader, to_tensor


def dataset(scan: ScanDataset, kind: str) -> EpochDataset:
    groups = GroupBatches(scan, ModelConfig(N=32, group_size=4), TrainConfig(n_groups=5, batch_size=2))
    stream = ObjectStream(scan.probe, 1e4, scan.bad_pixels, 1, 16, object_size_px=64, pool_size=2)
    source = EpochSource(
        None if kind == "simulated" else groups, None if kind == "measured" else stream, groups.batches_per_epoch, 3
    )
    return EpochDataset(source)


def same(a: TensorBatch, b: TensorBatch) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(TensorBatch)]
    return all((x is None and y is None) or torch.equal(x, y) for x, y in pairs)


def test_arrays_become_tensors_without_a_copy() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = to_tensor(array)
    array[0, 0] = 9
    assert tensor[0, 0] == 9
    assert to_tensor(array.T).shape == (3, 2)


@pytest.mark.parametrize(("kind", "patterns"), [("measured", [8, 8, 4]), ("simulated", [3] * 3), ("both", [11, 11, 7])])
def test_an_epoch_has_its_batches(scan: ScanDataset, kind: str, patterns: list[int]) -> None:
    given = dataset(scan, kind)
    found = list(given)
    assert len(found) == len(given) == 3
    assert [batch.patterns for batch in found] == patterns
    for batch in found:
        assert (batch.counts is None) == (kind == "simulated")
        assert (batch.simulated_counts is None) == (kind == "measured")
    if kind != "measured":
        last = found[-1]
        assert last.simulated_counts is not None
        assert last.simulated_truth is not None
        assert (last.simulated_counts.shape, last.simulated_counts.dtype) == ((3, 32, 32), torch.float32)
        assert (last.simulated_truth.shape, last.simulated_truth.dtype) == ((3, 16, 16), torch.complex64)
        # DC in the corner, where the light is
        assert last.simulated_counts[:, 0, 0].min() > last.simulated_counts[:, 16, 16].max()


def test_an_epoch_is_its_number_and_nothing_else(scan: ScanDataset) -> None:
    one, other = dataset(scan, "both"), dataset(scan, "both")
    list(one)
    one.epoch = other.epoch = 2
    again = list(one)
    assert all(same(a, b) for a, b in zip(again, other, strict=True))
    other.epoch = 3
    assert not any(same(a, b) for a, b in zip(again, other, strict=True))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_workers_give_the_same_batches_in_the_same_order(scan: ScanDataset) -> None:
    """From epoch to epoch, over which the workers live on."""
    one, other = dataset(scan, "both"), dataset(scan, "both")
    workers = loader(other, num_workers=2, pin=False)
    for epoch in (0, 1, 4):
        one.epoch = other.epoch = epoch
        alone, shared = list(loader(one, num_workers=0, pin=False)), list(workers)
        assert len(alone) == len(shared) == 3
        assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


def test_a_batch_moves_whole(scan: ScanDataset) -> None:
    batch = next(iter(dataset(scan, "measured")))
    moved = batch.to("meta")
    assert moved.counts is not None
    assert moved.counts.device.type == "meta"
    assert moved.simulated_counts is None
