"""Several processes of a training; tests/hardening has what can go wrong. Requirements: specs/10-training.md."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from backend_suite.fits import TINY_MODEL, TINY_TRAIN, Fits

from ptychopinn.cli import main
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.errors import ConfigError, ResourceError, UsageError
from ptychopinn.monitor import Monitor
from ptychopinn.workflows import folders
from ptychopinn_tf import ranks
from ptychopinn_tf.options import TfOptions
from ptychopinn_tf.ranks import device_options, find_place, open_ranks
from ptychopinn_tf.reconstructor import TfReconstructor


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Number ``rank`` of four processes that were started on two machines."""

    def launch(rank: int) -> None:
        workers = [f"node{node}:{port}" for node in (1, 2) for port in (98, 99)]
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))

    return launch


def options(**settings: Any) -> TfOptions:
    return TfOptions(**{"accelerator": "cpu", **settings})


def test_two_processes_train_as_one(fits: Fits, scan: ScanDataset, tmp_path: Path) -> None:
    """[TRAIN-018] [TRAIN-022] The same losses, in the last epoch too."""
    write_scan(tmp_path / "scan.npz", scan)
    settings = {**TINY_MODEL, **TINY_TRAIN, "batch_size": 3, "nepochs": 2}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if name != "N"]
    where = ["--backend=tf", "--accelerator=cpu", "--devices=2", "--refine=0"]
    assert main(["train", str(tmp_path / "scan.npz"), "-o", str(tmp_path / "run"), *where, *flags]) == 0
    with (tmp_path / "run" / folders.HISTORY).open(encoding="utf-8", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    one = fits.fit_to(scan, train={"batch_size": 3, "nepochs": 2})
    assert losses == pytest.approx(one.result.history["loss"], rel=1e-4)


def test_another_number_of_processes_is_refused(launched: Any) -> None:
    """[TRAIN-022]"""
    with pytest.raises(ConfigError, match="no launcher started this process on several nodes"):
        find_place(options(num_nodes=2))
    launched(0)
    with pytest.raises(ConfigError, match="4 processes were started, but devices 3"):
        find_place(options(devices=3))
    assert find_place(options()) is None  # whatever a launcher says


def test_python_leads_no_launched_process(launched: Any) -> None:
    """[TRAIN-022] A training that Python starts is that of the first process; the others only follow."""
    launched(3)
    asked = options(devices=2, num_nodes=2)
    with pytest.raises(UsageError, match="number 3 of 4"), open_ranks(asked, on_gpu=False):
        pass
    launched(0)
    assert not TfReconstructor.follow_launched(asked, Monitor())


def test_each_process_has_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-022] One card each, or the one that the scheduler shows to it."""
    assert device_options(options(devices=2), 1) == options()
    for cards, device in ((2, "cuda:1"), (1, "cuda:0")):
        monkeypatch.setattr(ranks, "count_gpus", lambda cards=cards: cards)
        own = device_options(TfOptions(devices=2, num_nodes=3), 1)
        assert (own.accelerator, own.process_count) == (device, 1)
    with pytest.raises(ResourceError, match="devices is 2, but there are 1 GPUs"):
        open_ranks(TfOptions(devices=2), on_gpu=True).__enter__()
