"""Batches as tensors, all of one size, from one thread or several."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.data.batches import GroupBatches
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.simulate import ObjectStream
from ptychopinn.training import EpochSource
from ptychopinn.typing import AnyArray
from ptychopinn_tf.batches import fill_up, patterns_in, prepared, tensor_batches


def source(scan: ScanDataset, kind: str) -> EpochSource:
    groups = GroupBatches(scan, ModelConfig(N=32, group_size=4), TrainConfig(n_groups=5, batch_size=2))
    stream = ObjectStream(scan.probe, 1e4, scan.bad_pixels, 1, 16, object_size_px=64, pool_size=2)
    return EpochSource(
        None if kind == "simulated" else groups, None if kind == "measured" else stream, groups.batches_per_epoch, 3
    )


def same(a: dict[str, AnyArray], b: dict[str, AnyArray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_arrays_are_filled_up_with_zeros() -> None:
    array = np.ones((2, 3), np.float32)
    assert fill_up(array, 2) is array
    assert fill_up(array, 4).tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert fill_up(array, 4).dtype == np.float32


@pytest.mark.parametrize(("kind", "patterns"), [("measured", [8, 8, 4]), ("simulated", [3] * 3), ("both", [11, 11, 7])])
def test_batches_are_of_one_size(scan: ScanDataset, kind: str, patterns: list[int]) -> None:
    given = list(source(scan, kind)(0))
    assert [patterns_in(arrays) for arrays in given] == patterns
    tensors = [tensor_batches(arrays, 2, 1)[0] for arrays in given]
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


@pytest.mark.parametrize("devices", [2, 3, 4])
def test_devices_share_a_batch(scan: ScanDataset, devices: int) -> None:
    arrays = next(iter(source(scan, "both")(0)))
    shards = tensor_batches(arrays, 2, devices)
    assert len(shards) == devices
    assert len({tuple(shard["counts"].shape) for shard in shards}) == 1
    for name in ("member_share", "group_share", "simulated_share"):
        assert sum(shard[name].numpy().sum() for shard in shards) == pytest.approx(1), name
    joined = np.concatenate([shard["counts"].numpy() for shard in shards])[:2]
    np.testing.assert_array_equal(joined, arrays["counts"])


def test_threads_prepare_the_same_batches_in_the_same_order(scan: ScanDataset) -> None:
    given = source(scan, "both")
    for epoch in (0, 1):
        alone = list(prepared(given, epoch, 0))
        for workers in (1, 2, 5):
            shared = list(prepared(given, epoch, workers))
            assert len(alone) == len(shared) == 3
            assert all(same(a, b) for a, b in zip(alone, shared, strict=True))
    assert not same(next(prepared(given, 0, 1)), next(prepared(given, 1, 1)))


class Endless:
    """Batches that somebody may wait for; the second of each thread fails if asked to."""

    def __init__(self, *, fails: bool = False) -> None:
        self._fails = fails

    def __len__(self) -> int:
        return 1000

    def __call__(self, epoch: int, first: int = 0, stride: int = 1) -> Iterator[dict[str, Any]]:
        for step in range(first, 1000, stride):
            if self._fails and step >= stride:
                raise OSError("the disk is gone")
            yield {"step": step}


def preparing() -> int:
    return sum(thread.name.startswith("batches-") for thread in threading.enumerate())


def test_threads_end_with_the_training() -> None:
    batches = prepared(Endless(), 0, 2)  # type: ignore[arg-type]
    assert [next(batches)["step"] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert preparing() == 2
    batches.close()
    assert preparing() == 0


def test_an_error_of_a_thread_is_raised() -> None:
    batches = prepared(Endless(fails=True), 0, 2)  # type: ignore[arg-type]
    assert [next(batches)["step"] for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert preparing() == 0
