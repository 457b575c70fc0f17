"""Training checkpoints: what is resumed is what was left. Requirements: specs/08-archive.md, specs/10-training.md."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_suite.fits import Fit, Fits, New, Trained, settings_of
from ptychopinn.bundle import ArchiveKind, read_bundle
from ptychopinn.errors import ArchiveError, ConfigError
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.reconstructor import TrainStatus

SETTINGS = {"nepochs": 5, "checkpoint_every": 1, "checkpoint_top_k": 9, "probe_trainable": True}


def names(folder: Path) -> list[str]:
    """The sorted names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


def epochs(folder: Path) -> list[int]:
    """The epochs of the checkpoints in a folder, ascending."""
    return [int(name[6:13]) for name in names(folder)]


def same_model(a: Trained, b: Trained, atol: float = 1e-6) -> None:
    """Check that two trained models have the same arrays."""
    for name, array in a.arrays().items():
        np.testing.assert_allclose(array, b.arrays()[name], atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def unbroken(fit: Fit) -> Trained:
    """A training of five epochs that was never interrupted."""
    return fit(train=SETTINGS)


KILLED = """
import os, signal, sys
from ptychopinn.config import SimulationConfig
from ptychopinn.monitor import Monitor
from ptychopinn.simulate import simulate_scan

scan = simulate_scan(SimulationConfig(N=32, rows=5, cols=5, seed=1))
monitor = Monitor(lambda progress: progress.done == 15 and os.kill(os.getpid(), signal.SIGKILL))
FITS.fit_to(scan, train={settings!r}, checkpoint_dir=sys.argv[1], monitor=monitor)
"""


def test_a_killed_training_goes_on_as_if_nothing_had_been(
    fits: Fits, fit: Fit, unbroken: Trained, tmp_path: Path
) -> None:
    """[TRAIN-005] Killed in its fourth epoch, resumed in another process."""
    command = fits.command(KILLED.format(settings=SETTINGS), tmp_path)
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert epochs(tmp_path) == [1, 2, 3]
    seen: list[Progress] = []
    resumed = fit(train=SETTINGS, checkpoint_dir=tmp_path, monitor=Monitor(seen.append))
    assert (seen[0].done, seen[0].total, len(seen)) == (13, 20, 8)
    for name in ("epoch", "loss", "nll", "learning_rate"):
        assert resumed.result.history[name] == pytest.approx(unbroken.result.history[name], rel=1e-5), name
    assert resumed.result.patterns_seen == unbroken.result.patterns_seen
    assert resumed.result.seconds > resumed.result.history["seconds"][2]
    same_model(resumed, unbroken)


def test_more_epochs_are_asked_of_a_finished_training(fit: Fit, tmp_path: Path) -> None:
    short = fit(train={**SETTINGS, "nepochs": 2}, checkpoint_dir=tmp_path)
    longer = fit(train={**SETTINGS, "nepochs": 4}, checkpoint_dir=tmp_path)
    assert longer.result.history["epoch"] == [1, 2, 3, 4]
    assert longer.result.history["loss"][:2] == pytest.approx(short.result.history["loss"])


def test_nothing_more_is_done_to_a_training_that_is_done(fit: Fit, tmp_path: Path) -> None:
    done = fit(train=SETTINGS, checkpoint_dir=tmp_path)
    seen: list[Progress] = []
    again = fit(train=SETTINGS, checkpoint_dir=tmp_path, monitor=Monitor(seen.append))
    assert seen == []
    assert again.result.status is TrainStatus.FINISHED
    assert again.result.history["loss"] == pytest.approx(done.result.history["loss"])
    same_model(again, done)


def test_time_used_up_stays_used_up(fit: Fit, tmp_path: Path) -> None:
    settings = {"nepochs": None, "max_time": 1e-3, "checkpoint_every": 1}
    first = fit(train=settings, checkpoint_dir=tmp_path)
    again = fit(train=settings, checkpoint_dir=tmp_path)
    assert first.result.status is again.result.status is TrainStatus.TIMED_OUT
    assert again.result.history["epoch"] == [1]


def test_a_cancelled_training_can_be_resumed(fit: Fit, tmp_path: Path) -> None:
    monitor = Monitor(lambda progress: monitor.cancel() if progress.done == 10 else None)
    cancelled = fit(train={**SETTINGS, "checkpoint_every": None}, checkpoint_dir=tmp_path, monitor=monitor)
    assert cancelled.result.history["epoch"] == [1, 2, 3]
    assert epochs(tmp_path) == [3]
    resumed = fit(train=SETTINGS, checkpoint_dir=tmp_path)
    assert resumed.result.history["epoch"] == [1, 2, 3, 4, 5]
    assert resumed.result.status is TrainStatus.FINISHED


def test_best_and_newest_survive_a_resumption(fit: Fit, unbroken: Trained, tmp_path: Path) -> None:
    """The best epoch so far is not forgotten: here the first one, since seconds only rise."""
    settings = {**SETTINGS, "early_stopping_patience": 9, "checkpoint_monitor": "seconds"}
    fit(train={**settings, "nepochs": 2}, checkpoint_dir=tmp_path / "a")
    resumed = fit(train={**settings, "nepochs": 3}, checkpoint_dir=tmp_path / "a")
    first = fit(train={**settings, "nepochs": 2})
    same_model(resumed, first)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"checkpoint_every": 2, "checkpoint_top_k": 9}, [2, 4, 5]),
        ({"checkpoint_every": 1, "checkpoint_top_k": 1, "checkpoint_monitor": "epoch"}, [1, 5]),
        ({"checkpoint_every": 1, "checkpoint_top_k": 2, "checkpoint_monitor": "epoch"}, [1, 2, 5]),
        (
            {
                "checkpoint_every": 1,
                "checkpoint_top_k": 3,
                "checkpoint_monitor": "epoch",
                "checkpoint_mode": "max",
            },
            [3, 4, 5],
        ),
        ({"checkpoint_every": None}, [5]),
    ],
)
def test_which_checkpoints_are_kept(fit: Fit, tmp_path: Path, settings: dict[str, Any], kept: list[int]) -> None:
    """Every so many epochs and at the end; by default only when the last one is old."""
    fit(train={"nepochs": 5, "n_groups": 2, **settings}, checkpoint_dir=tmp_path)
    assert epochs(tmp_path) == kept


def test_a_damaged_checkpoint_is_passed_over(fit: Fit, tmp_path: Path) -> None:
    """[TRAIN-005]"""
    fit(train={**SETTINGS, "nepochs": 3}, checkpoint_dir=tmp_path)
    newest = tmp_path / "epoch-0000003.ckpt.zip"
    newest.write_bytes(newest.read_bytes()[:-1000])
    seen: list[Progress] = []
    resumed = fit(train={**SETTINGS, "nepochs": 4}, checkpoint_dir=tmp_path, monitor=Monitor(seen.append))
    assert seen[0].figures["epoch"] == 3
    assert resumed.result.history["epoch"] == [1, 2, 3, 4]


@pytest.mark.parametrize("change", [{"iterations": 2}, {"amp_activation": "exp"}, {"group_size": 5}])
def test_another_model_is_not_resumed(fit: Fit, tmp_path: Path, change: dict[str, Any]) -> None:
    fit(train={"checkpoint_every": 1}, checkpoint_dir=tmp_path)
    with pytest.raises(ConfigError, match="another configuration") as caught:
        fit(model=change, train={"nepochs": 2}, checkpoint_dir=tmp_path)
    assert "--overwrite" in caught.value.remedy


def test_a_checkpoint_holds_tensors_and_json_alone(fit: Fit, tmp_path: Path) -> None:
    fit(train={"checkpoint_every": 1}, checkpoint_dir=tmp_path)
    bundle = read_bundle(tmp_path / "epoch-0000001.ckpt.zip")
    assert bundle.manifest.kind is ArchiveKind.CHECKPOINT
    groups = {name.partition("/")[0] for name in bundle.weights}
    assert groups == {"model", "averaged", "best", "begun", "history", "optimizer", "threads"}
    state = bundle.manifest.extra["state"]
    assert isinstance(state, dict)
    assert (state["epoch"], state["step"]) == (1, 4)


def test_a_checkpoint_is_no_model(fits: Fits, fit: Fit, tmp_path: Path) -> None:
    """What to do instead is said."""
    fit(train={"checkpoint_every": 1}, checkpoint_dir=tmp_path)
    with pytest.raises(ArchiveError, match="is a checkpoint of a training, not a model") as caught:
        fits.cls.load(tmp_path / "epoch-0000001.ckpt.zip")
    assert "--resume" in caught.value.remedy


def test_settings_of_a_run_may_be_read_from_its_archive(trained: Trained, new: New, tmp_path: Path) -> None:
    trained.reconstructor.save(tmp_path / "wts.h5.zip")
    summary = read_bundle(tmp_path / "wts.h5.zip").manifest.training
    assert summary is not None
    assert (summary.status, summary.epochs, summary.patterns_seen) == ("finished", 3, trained.result.patterns_seen)
    assert summary.config == settings_of({"nepochs": 3}).model_dump(mode="json")
    assert summary.figures["loss"] == pytest.approx(trained.result.history["loss"][-1])
    assert new().model == read_bundle(tmp_path / "wts.h5.zip").manifest.model
