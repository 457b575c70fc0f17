"""One scan of a batch, in a process of its own: specs/27-batch.md."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ptychopinn.batch.plan import PlannedScan, settings_from
from ptychopinn.batch.worker import run_scan
from ptychopinn.config import SimulationConfig
from ptychopinn.config.batch import Workflow
from ptychopinn.data.io import write_scan
from ptychopinn.errors import ResourceError
from ptychopinn.monitor import Monitor
from ptychopinn.simulate import simulate_scan

pytest.importorskip("fcntl", reason="without it files have no locks here")
HOLD = """
import sys
from pathlib import Path
from ptychopinn.workflows.lock import locked
with locked(Path(sys.argv[1])):
    print(flush=True)
    input()
"""


def work(folder: Path) -> dict[str, object]:
    write_scan(folder / "scan.npz", simulate_scan(SimulationConfig(N=32, rows=5, cols=5)))
    settings = settings_from({"automatic": {"max_time": 0.05}})
    scan = PlannedScan("scan", Workflow.RECONSTRUCT, folder / "scan.npz", "none", None, None, settings)
    return run_scan(json.loads(json.dumps(scan.values(), default=str)), str(folder / "run"), str(folder), Monitor())


@pytest.mark.slow
def test_a_worker_that_is_cut_off_but_alive_is_waited_for_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[BATCH-008] If it does not end, the error is one after which the scan is tried again, after all others."""
    (run := tmp_path / "run").mkdir()
    caplog.set_level(logging.WARNING, "ptychopinn")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        monkeypatch.setattr("ptychopinn.batch.worker._LOCKED_S", 0.5)
        with pytest.raises(ResourceError, match=rf"in use by process {other.pid} on .* not ended in 0.5 s") as caught:
            work(tmp_path)
        assert "--resume" in caught.value.remedy
        assert f"process {other.pid}" in caplog.text
        monkeypatch.setattr("ptychopinn.batch.worker._LOCKED_S", 60.0)
        release = threading.Timer(1.0, other.communicate, ("done\n",))
        release.start()
        assert work(tmp_path)["score"] is not None
        release.join()
