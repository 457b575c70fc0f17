"""The released program's window, driven through its widgets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")
if find_spec("PyQt5") is None:
    pytest.skip("PyQt5 is not installed", allow_module_level=True)

from bridge_entries import QT_LIBRARIES, Entry, missing_packages
from bridge_scans import write_scan_folder

from ptychopinn.bundle import read_manifest

HERE = Path(__file__).parent
PLAIN = {"probe_refinement": 0, "batch_size": 2}  # what the example backend takes
TINY = {"n_filters_scale": 0.25, **PLAIN}

pytestmark = pytest.mark.usefixtures("qt")


def _play(
    story: str, folder: Path, entry: Entry, environment: dict[str, str], fields: dict[str, Any] | None = None
) -> dict[str, Any]:
    write_scan_folder(folder, known_object=entry.model_type == "supervised")
    command = [sys.executable, "-P", HERE / "gui_driver.py", story, folder, entry.algorithm]
    environment = {**environment, "PYTHONPATH": os.pathsep.join([str(HERE), environment.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [*map(str, command), json.dumps(TINY if fields is None else fields)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (folder / "seen.json").is_file(), done.stdout + done.stderr
    seen: dict[str, Any] = json.loads((folder / "seen.json").read_text())
    assert "failed" not in seen, seen["failed"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen["frameworks"] == []  # in any story the window's process imports none
    return {**seen, "output": done.stdout}


def _logged_at(words: str, output: str) -> datetime:
    line = next(line for line in output.splitlines() if words in line)
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")


def _check_whole(seen: dict[str, Any], entry: Entry, folder: Path) -> None:
    assert entry.algorithm in seen["algorithms"]
    assert seen["active at start"] == seen["shown at start"]
    low, high, value, tip = seen["batch_size"]
    assert (low, high, value) == (0, 4096, 2)  # 0 stands for the default
    assert "Groups of patterns in a batch" in tip
    assert len(seen["shown folded"]) == 11
    assert {"preset", "max_time", "nepochs", "refine", "refine_probe", "accelerator"} <= set(seen["shown folded"])
    assert set(seen["shown folded"]) < set(seen["shown unfolded"]) == set(seen["pane"])
    assert seen["n_groups"] == "every pattern once"
    assert seen["scrolled over"] == value  # without focus the wheel scrolls the pane and changes nothing
    kinds = seen["pane"]
    assert (kinds["scheduler"], kinds["probe_trainable"]) == ("QComboBox", "QCheckBox")
    assert (kinds["learning_rate"], kinds["nepochs"]) == ("RealBox", "IntegerBox")
    assert not {"N", "model_type"} & set(kinds)
    saved = (folder / "saved.ini").read_text()
    assert f"[{entry.group}]" in saved
    assert "nepochs = 12" in saved
    assert seen["infer before training"] is False
    assert seen["infer after training"] is True
    assert 0 < seen["progress while training"] <= 1
    assert "Training finished" in seen["log"]
    for key in ("first", "again"):
        assert seen[key]["products"] == 1
        assert seen[key]["losses"] == seen[key]["plot"] == 12
        assert seen[key]["deviation"] > 0.01
    assert seen["first"]["deviation"] == pytest.approx(seen["again"]["deviation"], rel=1e-3)
    assert seen["exported"] is True
    assert "wrong.zip" in seen["refused"]
    assert "not a whole model archive" in seen["refused"]
    assert f"a model of the type {entry.model_type}" in seen["refused by the other type"]
    assert seen["infer of the other type"] is False
    assert seen["not refused"] == ""


def test_the_whole_story(tmp_path: Path, any_entry: Entry, environment: dict[str, str]) -> None:
    """[PTY-001] [PTY-005] [PTY-023] [PTY-030] [PTY-031] [PTY-032] [PTY-033] [PTY-035] [PTY-046] The story."""
    seen = _play("whole", tmp_path / "scan", any_entry, environment)
    _check_whole(seen, any_entry, tmp_path / "scan")
    assert len(seen["curve"]) > 2


def test_a_third_partys_backend(tmp_path: Path, strange_entry: Entry, environment: dict[str, str]) -> None:
    """[PTY-010] A backend that nobody here has heard of has an entry, and the same story works with it."""
    slow = {**PLAIN, "probe_refinement": 200}  # its training alone is over before the window looks at it
    seen = _play("whole", tmp_path / "scan", strange_entry, environment, slow)
    _check_whole(seen, strange_entry, tmp_path / "scan")


def test_what_is_trained_on(tmp_path: Path, strange_entry: Entry, environment: dict[str, str]) -> None:
    """[PTY-030] [PTY-032] [PTY-033] [PTY-034] The open scan, else files after a question; a failure is a dialog."""
    seen = _play("sources", tmp_path / "scan", strange_entry, environment, {**PLAIN, "nepochs": 2})
    data = {
        "npz": "exported.npz",
        "pair": "diffraction.h5",
        "open": "the scan that is open",
        "empty": "scan that is open",
    }
    for name, words in data.items():
        assert seen[name]["model"] is True
        assert words in seen[name]["log"]
        assert "Training finished" in seen[name]["log"]
        assert (words in seen[name]["asked"]) == (name in ("npz", "pair"))
    assert seen["newest line in view"] is True
    assert "inference_batch_size" in seen["failed inference"][1]
    assert seen["products of it"] == 0
    assert seen["model kept"] is True
    title, problem, remedy, _ = seen["refused"]
    assert title == "supervised-numpy: train failed"
    assert "constant" in problem
    assert remedy


def test_killed_worker_becomes_a_dialog(tmp_path: Path, entry: Entry, environment: dict[str, str]) -> None:
    """[PTY-034] [PTY-035] The dialog names the signal and the exit code and shows the worker's last lines."""
    seen = _play("killed", tmp_path / "scan", entry, environment)
    title, text, _, details = seen["dialog"]
    assert title == f"{entry.name}: train failed"
    assert "exit code -9" in text
    assert "Training on" in details
    assert seen["stop text"] == "Stop"
    assert seen["train again"] is True


def test_stop_answers_and_saves(tmp_path: Path, entry: Entry, environment: dict[str, str]) -> None:
    """[PTY-036] [PTY-037] Stop is answered within a second, the model is there within ten, with its own entry."""
    seen = _play("stop", tmp_path / "scan", entry, environment)
    assert seen["says"] == ["Stopping...", False]
    assert seen["answered after"] < 1.0
    assert seen["over after"] < 10.0
    assert seen["own has a model"] is True
    assert seen["other has a model"] is False
    training = read_manifest(tmp_path / "scan/model.zip").training
    assert training is not None
    assert training.status == "cancelled"
    assert seen["inference over after"] < 2.0  # answered at once, and Ptychodus looks after it once a second
    assert seen["stop text"] == "Stop"


def test_closing_the_window_leaves_a_model_and_no_process(
    tmp_path: Path, entry: Entry, environment: dict[str, str]
) -> None:
    """[PTY-036] Ptychodus is let go within a second; the worker saves by itself and is gone within ten."""
    seen = _play("close", tmp_path / "scan", entry, environment)
    asked, let_go = (_logged_at(line, seen["output"]) for line in ("Stopping task manager", "Task manager stopped"))
    assert (let_go - asked).total_seconds() < 1.0
    model = tmp_path / "scan/model.zip"
    while not (model.is_file() and not Path(f"/proc/{seen['pid']}").exists()):
        assert time.time() - seen["closed at"] < 12.0, "no model, or the worker lives on"
        time.sleep(0.1)
    training = read_manifest(model).training
    assert training is not None
    assert training.epochs > 0


def test_missing_system_libraries_are_named() -> None:
    """[PTY-001] The tests of the window skip where the system lacks libraries of Qt, by the names of their packages."""
    assert missing_packages({"libc.so.6": "libc6", "libno-such-thing.so.9": "libno9"}) == ["libno9"]
    assert missing_packages(QT_LIBRARIES) == []  # the fixture would have skipped
