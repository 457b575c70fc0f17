"""Run directories: one run at a time, nothing lost, nothing written elsewhere. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hardening.kit.job_runner import JobRunner, outcome
from hardening.kit.pool import environment

from ptychopinn.atomic import remove_leftovers
from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import ConfigError, DataError, PtychoPinnError, UsageError
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows._lock import LOCK, locked
from ptychopinn.workflows._train import _check_scans, _scans
from ptychopinn.workflows.folders import run_folder, run_log

OLD = ("config.yaml", "history.csv", "phase.png", "run.log", "wts.h5.zip")
KEPT = ("wts.h5.zip", "checkpoints")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of an earlier run."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in (*OLD, "checkpoints/epoch-0000001.ckpt.zip"):
        (folder / name).write_text(f"old {name}")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the directory."""
    code = (
        "import sys, time; from pathlib import Path; from ptychopinn.workflows._lock import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_a_second_run_is_refused(run: Path, how: dict[str, bool]) -> None:
    """[HARD-030] and changes nothing; a lock left behind by a killed run locks nothing."""
    before = content(run)
    with held_elsewhere(run) as holder:
        with pytest.raises(UsageError, match=rf"in use by process {holder.pid} on "), run_folder(run, **how):
            raise AssertionError("it was let in")
        assert content(run).keys() - {LOCK} == before.keys()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert (run / LOCK).exists()
        with locked(run):
            pass
    assert content(run) == before


def test_a_second_run_in_the_same_process_is_refused(tmp_path: Path) -> None:
    """[HARD-030]"""
    used = pytest.raises(UsageError, match=f"process {os.getpid()}")
    with run_folder(tmp_path / "run"), used, run_folder(tmp_path / "run"):
        raise AssertionError("it was let in")
    with run_folder(tmp_path / "run", overwrite=True):
        pass


def test_two_trainings_into_one_directory(jobs: JobRunner, scan: Path, trained: Path, tmp_path: Path) -> None:
    """[HARD-030]"""
    shutil.copytree(trained, tmp_path / "run")
    with held_elsewhere(tmp_path / "run"):
        for settings in ({"overwrite": True}, {"resume": True}):
            ending = jobs.run("train", tmp_path, scan, settings=settings)
            assert (ending.status, ending.told["error"]) == (2, "UsageError"), ending
            assert "in use by process" in ending.told["text"]
    (tmp_path / "run" / LOCK).unlink()
    assert outcome(tmp_path / "run")[0] == outcome(trained)[0]


def test_where_there_are_no_locks_a_warning_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[HARD-030]"""

    def unsupported(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with caplog.at_level(logging.WARNING, logger="ptychopinn"), locked(tmp_path):
        pass
    assert "cannot be locked (Operation not supported)" in caplog.text


def test_a_lock_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    """[HARD-004]"""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(PtychoPinnError, match="cannot be locked"), run_folder(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_an_earlier_run_is_back_after_a_refusal(run: Path) -> None:
    """[HARD-013]"""
    before = content(run)
    with pytest.raises(ConfigError), run_folder(run, overwrite=True, keep=KEPT) as folder:
        assert not (folder / "wts.h5.zip").exists()
        (folder / "config.yaml").write_text("new")
        (folder / "checkpoints").mkdir()  # with nothing in it yet
        raise ConfigError("The backend says no.", "Ask for something else.")
    assert content(run) == before


@pytest.mark.parametrize("name", KEPT)
def test_an_earlier_run_goes_when_the_new_one_has_something(run: Path, name: str) -> None:
    """[HARD-013]"""
    with pytest.raises(KeyboardInterrupt), run_folder(run, overwrite=True, keep=KEPT) as folder:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "epoch-0000001.ckpt.zip").write_text("new")
        if name == "wts.h5.zip":
            (folder / name).write_text("new")
        raise KeyboardInterrupt
    found = content(run)
    assert found.pop("run.log") == ""
    assert set(found.values()) == {"new"}


def test_a_backends_refusal_costs_nothing(jobs: JobRunner, scan: Path, trained: Path, tmp_path: Path) -> None:
    """[HARD-013] It comes from the training itself, after the directory was made ready."""
    shutil.copytree(trained, tmp_path / "run")
    settings = {"overwrite": True, "train": {"checkpoint_monitor": "nothing"}}
    ending = jobs.run("train", tmp_path, scan, settings=settings)
    assert (ending.status, ending.told["error"]) == (2, "ConfigError"), ending
    assert {p.name for p in (tmp_path / "run").iterdir()} == {p.name for p in trained.iterdir()}
    assert outcome(tmp_path / "run")[0] == outcome(trained)[0]


def _cut_short_aside(folder: Path) -> None:
    (folder / ".moving").mkdir()
    os.replace(folder / "wts.h5.zip", folder / ".moving" / "wts.h5.zip")


def _set_aside(folder: Path) -> None:
    (folder / ".replaced").mkdir()
    for path in [p for p in folder.iterdir() if p.name != ".replaced"]:
        os.replace(path, folder / ".replaced" / path.name)
    (folder / "config.yaml").write_text("new")
    (folder / "csv").mkdir()


def _cut_short_back(folder: Path) -> None:
    _set_aside(folder)
    (folder / "config.yaml").unlink()
    os.replace(folder / ".replaced", folder / ".moving")
    os.replace(folder / ".moving" / "history.csv", folder / "history.csv")


@pytest.mark.parametrize("killed", [_cut_short_aside, _set_aside, _cut_short_back])
def test_after_a_kill_the_earlier_run_is_back(run: Path, killed: Callable[[Path], None]) -> None:
    """[HARD-013]"""
    before = content(run)
    killed(run)
    (run / ".phase.0123456789ab.part.png").write_text("half")
    with pytest.raises(UsageError, match="is there and not empty"), run_folder(run):
        raise AssertionError("it was let in")
    assert content(run) == before


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    """[HARD-010]"""
    stay = {".hidden", "a.part", ".x.0123456789AB.part.h5", ".x.0123.part", "x.0123456789ab.part.h5"}
    for name in {*stay, ".wts.h5.0123456789ab.part.zip", ".notes.0123456789ab.part"}:
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == stay


@pytest.mark.parametrize("name", ["history.csv", "run.log", "checkpoints", "checkpoints/epoch-0000002.ckpt.zip"])
def test_a_run_that_leads_elsewhere_is_not_resumed(run: Path, tmp_path: Path, name: str) -> None:
    """[HARD-004]"""
    (tmp_path / "elsewhere").mkdir()
    if (run / name).is_dir():
        shutil.rmtree(run / name)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="leads elsewhere"), run_folder(run, resume=True):
        raise AssertionError("it was let in")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_another_scan_is_not_resumed(jobs: JobRunner, scan: Path, trained: Path, tmp_path: Path) -> None:
    """[HARD-014]"""
    shutil.copytree(trained, tmp_path / "run")
    write_scan(tmp_path / "scan.npz", simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=2)))
    ending = jobs.run("train", tmp_path, tmp_path / "scan.npz", settings={"resume": True})
    assert (ending.status, ending.told["error"]) == (3, "DataError"), ending
    assert "begun with other data" in ending.told["text"]
    dose = jobs.run("train", tmp_path, scan, settings={"resume": True, "reading": {"nphotons": 5.0}})
    assert (dose.status, dose.told["error"]) == (3, "DataError"), dose
    held = jobs.run("train", tmp_path, scan, settings={"resume": True, "validation": str(scan)})
    assert (held.status, held.told["error"]) == (3, "DataError"), held
    shutil.copy(scan, tmp_path / "moved.npz")
    assert jobs.run("train", tmp_path, tmp_path / "moved.npz", settings={"resume": True}).status == 0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"training": 3}', '{"training": {}}', "[" * 100_000])
def test_a_damaged_record_of_the_scans_is_told(scan: Path, tmp_path: Path, text: str) -> None:
    """[HARD-014] [HARD-001]"""
    (tmp_path / "scan.json").write_text(text)
    scans = _scans(read_scan(scan), None)
    with pytest.raises(DataError, match="is damaged"):
        _check_scans(tmp_path / "scan.json", scans)
    (tmp_path / "scan.json").write_text(json.dumps(scans))
    _check_scans(tmp_path / "scan.json", scans)
    _check_scans(tmp_path / "none.json", scans)


def test_a_log_on_a_full_disk_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """[HARD-012]"""
    (tmp_path / "run.log").symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING, logger="ptychopinn"), run_log(tmp_path):
        for _ in range(3):
            logging.getLogger("ptychopinn.here").info("a line")
    assert caplog.text.count("is not complete") == 1
    assert "Traceback" not in capsys.readouterr().err
