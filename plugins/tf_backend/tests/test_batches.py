"""Batches as tensors, all of one size."""

from __future__ import annotations

import numpy as np
import pytest

from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.data.batches import GroupBatches
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.simulate import ObjectStream, ObjectStreamOptions
from ptychopinn.training import EpochSource, patterns_in
from ptychopinn.training.sources import Batch
from ptychopinn_tf.batches import pad_batch, share_of, to_tensors


def source(scan: ScanDataset, kind: str) -> EpochSource:
    config = TrainConfig(n_groups=5, batch_size=2).resolved(on_gpu=False)
    groups = GroupBatches(scan, ModelConfig(N=32, group_size=4), config)
    stream = ObjectStream(scan.probe, 1e4, scan.bad_pixels, 1, 16, ObjectStreamOptions(object_size_px=64, pool_size=2))
    return EpochSource(
        None if kind == "simulated" else groups, None if kind == "measured" else stream, groups.batches_per_epoch, 3
    )


def test_arrays_are_filled_up_with_zeros() -> None:
    array = np.ones((2, 3), np.float32)
    assert pad_batch(array, 2) is array
    assert pad_batch(array, 4).tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert pad_batch(array, 4).dtype == np.float32


@pytest.mark.parametrize(("kind", "patterns"), [("measured", [8, 8, 4]), ("simulated", [3] * 3), ("both", [11, 11, 7])])
def test_batches_are_of_one_size(scan: ScanDataset, kind: str, patterns: list[int]) -> None:
    given = list(source(scan, kind)(0))
    assert [patterns_in(arrays) for arrays in given] == patterns
    tensors = [to_tensors(arrays, 2) for arrays in given]
    shapes = [{name: (tuple(t.shape), t.dtype) for name, t in batch.items()} for batch in tensors]
    assert shapes[0] == shapes[1] == shapes[2]
    last = tensors[-1]
    if kind != "simulated":
        assert last["group_share"].numpy().tolist() == [1, 0]
        assert last["member_share"].numpy().tolist() == [[0.25] * 4, [0] * 4]
        assert (last["member"].numpy()[1] == 0).all()
    if kind != "measured":
        counts = last["simulated_counts"].numpy()
        assert counts[:, 0, 0].min() > counts[:, 16, 16].max()  # DC in the corner, where the light is
        np.testing.assert_allclose(last["simulated_share"].numpy(), 1 / 3)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_share_a_batch(scan: ScanDataset, processes: int) -> None:
    """[TRAIN-018] Also where there are fewer groups than processes."""
    arrays = next(iter(source(scan, "both")(0)))
    batch = Batch(to_tensors(arrays, 2), patterns_in(arrays))
    shards = [share_of(batch, rank, processes).tensors for rank in range(processes)]
    assert len({tuple(shard["counts"].shape) for shard in shards}) == 1
    for name in ("member_share", "group_share", "simulated_share"):
        assert sum(shard[name].numpy().sum() for shard in shards) == pytest.approx(1), name
    joined = np.concatenate([shard["counts"].numpy() for shard in shards])[:2]
    np.testing.assert_array_equal(joined, arrays["counts"])
