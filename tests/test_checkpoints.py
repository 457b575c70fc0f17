"""A folder of checkpoints: the newest and the best few."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ptychopinn.bundle import ArchiveKind, Manifest, Writer, read_bundle
from ptychopinn.checkpoints import CheckpointStore
from ptychopinn.config import ModelConfig
from ptychopinn.config.train import CheckpointMode

MANIFEST = Manifest(
    kind=ArchiveKind.CHECKPOINT,
    writer=Writer(ptychopinn="0", backend="numpy"),
    model=ModelConfig(N=32),
    extra={"state": {"epoch": 7}},
)


def save(store: CheckpointStore, epoch: int, figure: float | None) -> None:
    store.save(epoch, MANIFEST, {"model/step": np.array([float(epoch)])}, figure)


def epochs(folder: Path) -> list[int]:
    return sorted(int(path.name[6:13]) for path in folder.iterdir())


def test_what_is_saved_is_found_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "new" / "folder", top_k=1, mode=CheckpointMode.MIN)
    assert store.newest() is None
    assert not (tmp_path / "new").exists()
    save(store, 3, 0.5)
    found = store.newest()
    assert found is not None
    assert found.manifest.kind is ArchiveKind.CHECKPOINT
    assert found.manifest.extra["state"] == {"epoch": 7}
    assert found.weights["model/step"] == 3


@pytest.mark.parametrize(
    ("mode", "top_k", "kept"),
    [
        (CheckpointMode.MIN, 1, [2, 5]),
        (CheckpointMode.MIN, 2, [2, 3, 5]),
        (CheckpointMode.MAX, 1, [1, 5]),
        (CheckpointMode.MAX, 3, [1, 4, 5]),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path: Path, mode: CheckpointMode, top_k: int, kept: list[int]) -> None:
    store = CheckpointStore(tmp_path, top_k=top_k, mode=mode)
    for epoch, figure in enumerate([0.9, 0.1, 0.2, 0.8, 0.7], start=1):
        save(store, epoch, figure)
    assert epochs(tmp_path) == kept


def test_the_newest_may_be_the_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, top_k=1, mode=CheckpointMode.MIN)
    for epoch in (1, 2, 3):
        save(store, epoch, 1 / epoch)
    assert epochs(tmp_path) == [3]


def test_a_checkpoint_without_a_figure_ranks_last(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, top_k=1, mode=CheckpointMode.MAX)
    for epoch, figure in ((1, -5.0), (2, None), (3, -9.0)):
        save(store, epoch, figure)
    assert epochs(tmp_path) == [1, 3]


def test_another_process_ranks_what_is_there(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, top_k=1, mode=CheckpointMode.MIN)
    save(store, 1, 0.1)
    save(store, 2, 0.5)
    save(CheckpointStore(tmp_path, top_k=1, mode=CheckpointMode.MIN), 3, 0.4)
    assert epochs(tmp_path) == [1, 3]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "epoch-1.ckpt.zip").write_text("not one of ours")
    store = CheckpointStore(tmp_path, top_k=1, mode=CheckpointMode.MIN)
    for epoch in (1, 2):
        save(store, epoch, 0.1)
    assert {"notes.txt", "epoch-1.ckpt.zip"} < {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("harm", ["cut", "alter"])
def test_a_damaged_checkpoint_is_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    store = CheckpointStore(tmp_path, top_k=5, mode=CheckpointMode.MIN)
    for epoch, figure in ((1, 0.5), (2, 0.4), (3, 0.3)):
        save(store, epoch, figure)
    newest = tmp_path / "epoch-0000003.ckpt.zip"
    content = newest.read_bytes()
    middle = len(content) // 2
    altered = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    newest.write_bytes(altered if harm == "alter" else content[:middle])
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        found = CheckpointStore(tmp_path, top_k=5, mode=CheckpointMode.MIN).newest()
    assert found is not None
    assert found.weights["model/step"] == 2
    assert "epoch-0000003.ckpt.zip is skipped" in caplog.text


def test_all_damaged_is_none(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, top_k=1, mode=CheckpointMode.MIN)
    save(store, 1, 0.5)
    (tmp_path / "epoch-0000001.ckpt.zip").write_bytes(b"PK")
    assert store.newest() is None
    # and a new training goes over it
    save(CheckpointStore(tmp_path, top_k=1, mode=CheckpointMode.MIN), 1, 0.5)
    assert read_bundle(tmp_path / "epoch-0000001.ckpt.zip").weights["model/step"] == 1
