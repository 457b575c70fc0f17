"""What share of the loss each pattern of a batch has. Requirements: specs/10-training.md."""

from __future__ import annotations

import numpy as np

from ptychopinn.config import ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data.batches import GroupBatches
from ptychopinn.simulate import ObjectStream, ObjectStreamOptions, simulate_scan
from ptychopinn.training import EpochSource
from ptychopinn.training.shares import loss_shares


def test_shares_are_those_of_a_mean() -> None:
    """[LOSS-006] Over the members, over the groups, over the simulated patterns."""
    member = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    found = loss_shares({"member": member, "simulated_counts": np.zeros((4, 2, 2))})
    np.testing.assert_allclose(found["member_share"], member / 3)
    np.testing.assert_allclose(found["group_share"], [0.5, 0.5])
    np.testing.assert_allclose(found["simulated_share"], [0.25] * 4)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}


def test_only_what_is_there_has_shares() -> None:
    assert set(loss_shares({"member": np.ones((1, 1), np.float32)})) == {"member_share", "group_share"}
    assert set(loss_shares({"simulated_counts": np.zeros((1, 2, 2))})) == {"simulated_share"}


def test_every_batch_of_an_epoch_has_its_own() -> None:
    """[LOSS-006] The smaller last one too."""
    scan = simulate_scan(SimulationConfig(N=32, rows=4, cols=4))
    config = TrainConfig(n_groups=5, batch_size=2).resolved(on_gpu=False)
    groups = GroupBatches(scan, ModelConfig(N=32, group_size=4), config)
    stream = ObjectStream(scan.probe, 1e4, None, 1, 16, ObjectStreamOptions(object_size_px=64, pool_size=2))
    batches = list(EpochSource(groups, stream, groups.batches_per_epoch, 3)(0))
    assert [len(batch["group_share"]) for batch in batches] == [2, 2, 1]
    for batch in batches:
        assert batch["member_share"].shape == batch["member"].shape
        for name in ("member_share", "group_share", "simulated_share"):
            np.testing.assert_allclose(batch[name].sum(), 1, rtol=1e-6, err_msg=name)
