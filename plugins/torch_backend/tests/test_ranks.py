"""Who starts the processes of a training; tests/hardening trains with two. Requirements: specs/10-training.md."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch_fits import FITS

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ConfigError, ResourceError, UsageError
from ptychopinn.monitor import Monitor
from ptychopinn.training.sources import Batch
from ptychopinn_torch.batches import share_of
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.ranks import Place, device_options, find_place, open_ranks
from ptychopinn_torch.reconstructor import TorchReconstructor

TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1"}
ADDRESS = {"MASTER_ADDR": "node1", "MASTER_PORT": "1234"}
SLURM = {
    **{"SLURM_JOB_ID": "21234", "SLURM_JOB_NAME": "scan", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2"},
    **{"SLURM_NNODES": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"},
    "SLURM_NODELIST": "node[1-2]",
}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *ADDRESS, *SLURM):
        monkeypatch.setenv(name, "")  # so that what Lightning sets is removed afterwards
        monkeypatch.delenv(name)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Any:
    def launch(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return launch


def options(**settings: Any) -> TorchOptions:
    return TorchOptions(**{"accelerator": "cpu", **settings})


def test_the_place_in_a_launcher(launched: Any) -> None:
    """[TRAIN-022] torchrun's, also in a job of Slurm; then Slurm's own."""
    asked = options(devices=2, num_nodes=2)
    launched(SLURM)
    assert find_place(asked) == Place(3, 4, 1, "node1", 16234)
    launched({**TORCHRUN, **ADDRESS})
    assert find_place(asked) == Place(3, 4, 1, "node1", 1234)


def test_a_training_on_one_device_is_one_process(launched: Any) -> None:
    """[TRAIN-022] Whatever a launcher says."""
    launched({**SLURM, **TORCHRUN})
    assert find_place(options()) is None


def test_another_number_of_processes_is_refused(launched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-022]"""
    with pytest.raises(ConfigError, match="no launcher started this process on several nodes"):
        find_place(options(num_nodes=2))
    launched(SLURM)
    with pytest.raises(ConfigError, match="does not match"):
        find_place(options(devices=4))
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(ConfigError, match="--ntasks-per-node"):
        find_place(options(devices=4))
    launched({"SLURM_NTASKS": "1"})  # a job that starts its processes itself
    assert find_place(options(devices=4)) is None


def test_python_leads_no_launched_process(launched: Any) -> None:
    """[TRAIN-022] A training that Python starts is that of the first process; the others only follow."""
    launched({**TORCHRUN, **ADDRESS})
    asked = options(devices=2, num_nodes=2)
    with pytest.raises(UsageError, match="number 3 of 4"), open_ranks(asked, torch.device("cpu")):
        pass
    launched({"RANK": "0"})
    assert not TorchReconstructor.follow_launched(asked, Monitor())


def test_too_few_cards_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-022]"""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    three, first = TorchOptions(devices=3), torch.device("cuda", 0)
    with pytest.raises(ResourceError, match="devices is 3, but there are 2 GPUs"), open_ranks(three, first):
        pass


def test_each_process_has_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-022] One card each, or the one that the scheduler shows to it."""
    assert device_options(options(devices=2), 1) == options()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for cards, device in ((2, "cuda:1"), (1, "cuda:0")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda cards=cards: cards)
        own = device_options(TorchOptions(devices=2, num_nodes=3), 1)
        assert (own.accelerator, own.process_count) == (device, 1)
    with pytest.raises(ValidationError, match="give one of them"):
        TorchOptions(devices=2, accelerator="cuda:1")


def test_shares_of_a_batch() -> None:
    """[TRAIN-018] All groups once; who has none computes the first one, which does not count."""
    groups = {"counts": torch.arange(2.0)[:, None, None], "member": torch.ones(2, 1), "group_share": torch.ones(2)}
    patterns = {"simulated_counts": torch.arange(4.0), "simulated_share": torch.full((4,), 0.25)}
    batch = Batch({**groups, **patterns}, 6)
    shares = [share_of(batch, rank, 3).tensors for rank in range(3)]
    assert [share["counts"].flatten().tolist() for share in shares] == [[0.0], [1.0], [0.0]]
    assert [share["member"].tolist() for share in shares] == [[[1.0]], [[1.0]], [[0.0]]]
    assert [share["group_share"].tolist() for share in shares] == [[1.0], [1.0], [0.0]]
    assert torch.cat([share["simulated_counts"] for share in shares]).tolist() == [0.0, 1.0, 2.0, 3.0]
    assert share_of(batch, 0, 1) is batch


def test_the_reconstructor_of_a_launched_process(launched: Any, scan: ScanDataset) -> None:
    """[TRAIN-022] Refused before it waits for anybody."""
    launched({**TORCHRUN, **ADDRESS, "WORLD_SIZE": "3"})
    with pytest.raises(ConfigError, match=r"devices 2 x num_nodes 1 = 2|does not match"):
        FITS.new(options={"devices": 2}).train(scan, None)
