"""The entry that needs no training (specs/12-ptychodus.md)."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")

from bridge_entries import Ptychodus
from bridge_scans import make_input, simulated, write_scan_folder, write_settings
from ptychodus.api.io import load_product
from ptychodus.api.settings import SettingsRegistry

from ptychopinn.atomic import write_bytes
from ptychopinn.forward import expected_counts
from ptychopinn.plugins import Registry
from ptychopinn_ptychodus.automatic import AutomaticReconstructor, automatic_settings
from ptychopinn_ptychodus.conversion import positions_px
from ptychopinn_ptychodus.library import PluginLibrary
from ptychopinn_ptychodus.run_state import Host
from ptychopinn_ptychodus.settings import EntrySettings

HERE = Path(__file__).parent
ALGORITHM = "ptychopinn-plugin_reconstruct"
ALL = 1000  # pictures
SITE = """
import sys, time
from pathlib import Path

def seen():
    return int((Path({seen!r}).read_text() if Path({seen!r}).exists() else "") or 0)

if any(name == "ptychopinn.jobs.worker" for name in sys.orig_argv):
    import ptychopinn.workflows._reconstruct as workflow
    write, workflow._UPDATE_S, written = workflow.write_object_product, 0.0, []

    def write_and_wait(*given, **more):
        found = write(*given, **more)
        written.append(found)
        end = time.monotonic() + 120
        while seen() < len(written) and time.monotonic() < end:
            time.sleep(0.02)
        return found

    workflow.write_object_product = write_and_wait
"""


class _Window(Host):
    """A window whose user presses Stop at the first picture."""

    def __init__(self, *, stops: bool = False) -> None:
        super().__init__()
        self.has_window, self._stops, self.pictures = True, stops, 0

    @property
    def stop_wanted(self) -> bool:
        return self._stops and self.pictures > 0


def _entry(host: Host, **values: str) -> AutomaticReconstructor:
    entry = AutomaticReconstructor(EntrySettings(SettingsRegistry(), "g", automatic_settings()), host)
    for name, value in values.items():
        entry.settings.parameter("automatic", name).set_value(value)
    return entry


def _outputs(entry: AutomaticReconstructor, window: _Window, given: Any, seen: Path) -> Iterator[Any]:
    for output in entry.reconstruct(given):
        window.pictures += 1
        write_bytes(seen, str(ALL if window.stop_wanted else window.pictures).encode())
        yield output


@pytest.fixture
def pictures_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The worker writes the object so far after every round, and waits until this file says that it was seen."""
    (site := tmp_path / "site").mkdir()
    (site / "sitecustomize.py").write_text(SITE.format(seen=str(tmp_path / "pictures_seen")))
    monkeypatch.syspath_prepend(site)  # a worker searches where this process does
    return tmp_path / "pictures_seen"


def test_it_is_the_first_entry_and_needs_no_backend() -> None:
    """[PTY-060]"""
    library = PluginLibrary(SettingsRegistry(), Registry({}, {}))
    assert [entry.name for entry in library] == ["reconstruct"]


def test_the_object_so_far_is_shown(pictures_seen: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[PTY-060] [PTY-061] Pictures come while it works; the last one is the result, in the frame of the input."""
    scan, window = simulated(8), _Window()
    entry = _entry(window, may_free="")
    given = make_input(scan, obj=np.ones_like(scan.object_guess))
    with caplog.at_level(logging.INFO):
        *so_far, last = _outputs(entry, window, given, pictures_seen)
    assert so_far
    assert [one.progress for one in so_far] == sorted(one.progress for one in so_far)
    assert len({one.progress for one in so_far}) > 1
    assert "Passes started from a flat object" in caplog.text or "network" in caplog.text
    obj = last.product.object_.get_array()[0]
    assert obj.shape == scan.object_guess.shape
    expected = expected_counts(obj, last.product.probes.get_array()[0], positions_px(last.product))
    counts = np.asarray(scan.patterns, float)
    assert np.sqrt(((np.sqrt(expected) - np.sqrt(counts)) ** 2).sum() / counts.sum()) < 0.1
    assert np.abs(so_far[0].product.object_.get_array() - 1).max() > 0.1  # not the input


def test_stop_gives_the_object_so_far(pictures_seen: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[PTY-036] [PTY-061] No process is left."""
    scan, window = simulated(8), _Window(stops=True)
    entry = _entry(window)
    with caplog.at_level(logging.INFO):
        outputs = list(_outputs(entry, window, make_input(scan), pictures_seen))
    assert len(outputs) == 2  # a picture, and the result
    assert "passes, while they still paid" in caplog.text
    run = window.latest_run
    assert run is not None
    assert run.has_product
    assert run.finished
    assert not Path(f"/proc/{run.worker_pid}").exists()


@pytest.mark.usefixtures("qt")
def test_the_window(pictures_seen: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """[PTY-036] [PTY-060] [PTY-061] Reconstruct is all there is to press; the object is shown before the end."""
    write_scan_folder(tmp_path / "scan", 8)
    command = [sys.executable, "-P", HERE / "gui_driver.py", "automatic", tmp_path / "scan", ALGORITHM]
    path = os.pathsep.join([str(HERE), str(tmp_path / "site")])
    done = subprocess.run(command, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads((tmp_path / "scan/seen.json").read_text())
    assert seen["buttons"] == ["Reconstruct", False]
    assert seen["busy at the first picture"] is True
    assert seen["products"] == 1
    assert seen["deviation"] > 0.01
    assert "Stopping; the object so far is the result" in seen["log"]
    assert seen["frameworks"] == []


def test_batch_mode_writes_one_product(ptychodus: Ptychodus, tmp_path: Path) -> None:
    """[PTY-050] [PTY-060] Without a model, and with the probe and the positions of the product."""
    write_scan_folder(tmp_path / "in", 8)
    write_settings(tmp_path / "in", ALGORITHM, "PtychoPINNPlugin-reconstruct", {"max_time": 3})
    done = ptychodus("-b", "reconstruct", "-i", "in", "-o", "rec")
    assert done.returncode == 0, done.stdout + done.stderr
    (product,) = (tmp_path / "rec").glob("product.*.h5")
    assert re.search(r"stopped after \d+ passes|ended after \d+ passes", done.stdout), done.stdout
    assert np.abs(load_product(product).object_.get_array() - 1).max() > 0.1
