"""Plans of batches: specs/27-batch.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ptychopinn.batch import batch_run, read_plan
from ptychopinn.batch.plan import planned_scans
from ptychopinn.config.run import AllSettings
from ptychopinn.errors import ConfigError, PtychoPinnError


@pytest.fixture(autouse=True)
def _scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of these names in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("a_10.npz", "a_9.npz", "b/a_9.npz", "run1/reconstruction.h5", "run2/reconstruction.h5", "ref.npz"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()


def names(settings: AllSettings[Any, Any]) -> list[str]:
    return [one.name for one in planned_scans(settings)]


def test_a_pattern_gives_the_files_in_the_order_of_their_numbers() -> None:
    """[BATCH-001] Named after them; reconstructions after their run directories."""
    assert names(read_plan("a*.npz")) == ["a_9", "a_10"]
    evaluation = read_plan("run?/reconstruction.h5", batch={"workflow": "evaluate", "reference": "ref.npz"})
    assert names(evaluation) == ["run1", "run2"]


def test_a_table() -> None:
    """[BATCH-001] Settings of a scan are columns; empty cells leave them out."""
    Path("plan.csv").write_text("path,name,train.nepochs\na_9.npz,first,3\n\na_10.npz,,\n")
    first, second = planned_scans(read_plan("plan.csv", train={"nepochs": 7, "batch_size": 2}))
    assert (first.name, second.name) == ("first", "a_10")
    assert (first.settings.train.nepochs, second.settings.train.nepochs) == (3, 7)
    assert first.settings.train.batch_size == 2


def test_a_file_of_settings() -> None:
    """[BATCH-001] Shared ones, and those of a scan."""
    Path("plan.yaml").write_text(
        "batch:\n  workflow: train\n  start: none\n  scans:\n    - a*.npz\n"
        "    - {path: b/a_9.npz, name: c, settings: {automatic: {max_time: 5}}}\nautomatic: {max_time: 9}\n"
    )
    planned = planned_scans(read_plan("plan.yaml"))
    assert [(one.name, one.start, one.settings.automatic.max_time) for one in planned] == [
        ("a_9", None, 9),
        ("a_10", None, 9),
        ("c", None, 5),
    ]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({}, "has no scans"),
        ({"scans": ["a_9.npz", "gone.npz", "lost.npz"]}, r"gone\.npz is not there; .*lost\.npz is not there"),
        ({"scans": ["none*.npz"]}, "No file matches"),
        ({"scans": ["a_9.npz", "b/a_9.npz"]}, "would both be written to a_9"),
        ({"scans": ["a_9.npz", {"path": "a_10.npz", "name": "A_9"}]}, "would both be written to A_9"),
        ({"scans": [{"path": "a*.npz", "name": "x"}]}, "have one name, x"),
        ({"scans": [{"path": "a_9.npz", "name": "../x"}]}, "cannot be one of a run directory"),
        ({"scans": ["a_9.npz"], "workflow": "infer"}, "no start .*infer needs one"),
        ({"scans": ["a_9.npz"], "workflow": "infer", "start": "gone"}, "The model .*gone is not there"),
        ({"scans": ["a_9.npz"], "workflow": "evaluate"}, "no reference .*needs one"),
        ({"scans": ["a_9.npz"], "reference": "ref.npz"}, "a reference .*takes none"),
        ({"scans": [{"path": "a_9.npz", "scan": "a_10.npz"}]}, "a scan .*takes none"),
        ({"scans": [{"path": "a_9.npz", "settings": {"train": {"nepoch": 1}}}]}, r"a_9\.npz: .*nepoch"),
        ({"scans": [{"path": "a_9.npz", "settings": {"batch": {"retries": 1}}}]}, "a section batch"),
        ({"scans": ["a_9.npz"], "workflow": "infer", "chain": True}, "chain has no effect"),
        ({"scans": ["a_9.npz"], "chain": True, "workers": 2}, "one scan after another"),
    ],
)
def test_what_is_refused_before_any_work(batch: dict[str, Any], words: str, tmp_path: Path) -> None:
    """[BATCH-002]"""
    with pytest.raises((PtychoPinnError, ValueError), match=words):
        batch_run(AllSettings(batch=batch), "out")
    assert not Path("out").exists()


@pytest.mark.parametrize("text", ["name\nx\n", "path,colour\na_9.npz,red\n", "path\na_9.npz,b\n", 'path\n"a\n'])
def test_a_table_that_cannot_be_read(text: str) -> None:
    """[BATCH-002]"""
    Path("plan.csv").write_text(text)
    with pytest.raises(ConfigError, match=r"plan\.csv"):
        read_plan("plan.csv")


@pytest.mark.parametrize(
    ("gpus", "accelerator", "workers", "words"),
    [
        ("0,1", "auto", 3, "3 workers would share 2 GPUs"),
        ("0", "cuda", 2, "2 workers would share 1 GPU"),
        ("0,1", "cuda:1", 2, "share cuda:1"),
    ],
)
def test_two_workers_on_one_gpu_are_refused(
    gpus: str, accelerator: str, workers: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[BATCH-006]"""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    settings = read_plan("a*.npz", batch={"workers": workers}, execution={"accelerator": accelerator})
    with pytest.raises(PtychoPinnError, match=words):
        batch_run(settings, "out")
