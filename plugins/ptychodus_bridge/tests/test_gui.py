"""The released program's window, driven through its widgets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")
pytest.importorskip("PyQt5", reason="PyQt5 is not installed")

from bridge_entries import Entry
from bridge_scans import write_scan_folder

from ptychopinn.bundle import read_manifest

HERE = Path(__file__).parent


def _play(story: str, folder: Path, entry: Entry, environment: dict[str, str]) -> dict[str, Any]:
    write_scan_folder(folder)
    command = [sys.executable, "-P", HERE / "gui_driver.py", story, folder, entry.algorithm, entry.group]
    environment = {**environment, "PYTHONPATH": os.pathsep.join([str(HERE), environment.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [*map(str, command)], env=environment, cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert (folder / "seen.json").is_file(), done.stdout + done.stderr
    seen: dict[str, Any] = json.loads((folder / "seen.json").read_text())
    assert "failed" not in seen, seen["failed"]
    assert done.returncode == 0, done.stdout + done.stderr
    return seen


def test_the_whole_story(tmp_path: Path, entry: Entry, environment: dict[str, str]) -> None:
    """[PTY-001] [PTY-005] [PTY-023] [PTY-030] [PTY-031] [PTY-032] [PTY-033] [PTY-035] [PTY-046] The story."""
    seen = _play("whole", tmp_path / "scan", entry, environment)
    assert entry.algorithm in seen["algorithms"]
    assert seen["active at start"] == seen["shown at start"]
    low, high, value, tip = seen["batch_size"]
    assert (low, high, value) == (1, 4096, 2)
    assert "Groups in a batch" in tip
    assert seen["nepochs default word"] == "default"
    kinds = seen["pane"]
    assert (kinds["scheduler"], kinds["probe_trainable"]) == ("CalmComboBox", "QCheckBox")
    assert (kinds["learning_rate"], kinds["nepochs"]) == ("RealBox", "IntegerBox")
    assert not {"N", "model_type"} & set(kinds)
    saved = (tmp_path / "scan/saved.ini").read_text()
    assert f"[{entry.group}]" in saved
    assert "nepochs = 12" in saved
    assert seen["error"] == "None"
    assert len(seen["curve"]) > 2
    assert seen["infer before training"] is False
    assert seen["infer after training"] is True
    assert "Training finished" in seen["log"]
    for key in ("first", "again"):
        assert seen[key]["error"] == "None"
        assert seen[key]["products"] == 1
        assert seen[key]["losses"] == seen[key]["plot"] == 12
        assert seen[key]["deviation"] > 0.01
    assert seen["first"]["deviation"] == pytest.approx(seen["again"]["deviation"], rel=1e-3)
    assert seen["saved"] is True
    assert seen["exported"] is True
    (refused,) = seen["refused"]
    assert "wrong.zip" in refused
    assert "not a whole model archive" in refused
    assert seen["frameworks"] == []


def test_killed_worker_becomes_a_dialog(tmp_path: Path, entry: Entry, environment: dict[str, str]) -> None:
    """[PTY-034] [PTY-035] The dialog names the signal and the exit code and shows the worker's last lines."""
    seen = _play("killed", tmp_path / "scan", entry, environment)
    title, text, _, details = seen["dialog"]
    assert title == f"{entry.name}: train failed"
    assert "exit code -9" in text
    assert "Training on" in details
    assert seen["stop text"] == "Stop"
    assert seen["train again"] is True
    assert seen["frameworks"] == []


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


def test_closing_the_window_leaves_a_model_and_no_process(
    tmp_path: Path, entry: Entry, environment: dict[str, str]
) -> None:
    """[PTY-036] Ptychodus is gone soon after closing; the worker saves by itself and is gone within ten seconds."""
    seen = _play("close", tmp_path / "scan", entry, environment)
    model = tmp_path / "scan/model.zip"
    while not (model.is_file() and not Path(f"/proc/{seen['pid']}").exists()):
        assert time.time() - seen["closed at"] < 12.0, "no model, or the worker lives on"
        time.sleep(0.1)
    training = read_manifest(model).training
    assert training is not None
    assert training.epochs > 0
