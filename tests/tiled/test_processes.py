"""Scans in tiles by processes of this machine: specs/28-tiles.md."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ptychopinn.cli import main
from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.jobs import LOG
from ptychopinn.jobs.memory import descendants
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan

Cli = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.slow
FLAGS = ("--tiles", "2", "--passes", "2", "--may-free", "flux")  # the probe stays


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.npz"
    write_scan(path, simulate_scan(SimulationConfig(N=32, rows=16, cols=14, seed=3)))
    return path


def kill_workers(ended: threading.Event, killed: list[int]) -> None:
    """Kill a job of this process once in a round, until it has ended."""
    rounds: set[str] = set()
    while not ended.wait(0.05):
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError, IndexError):  # it has just ended
                log = Path(f"/proc/{pid}/fd/2").readlink()
                if log.name == LOG and (name := log.parts[-3]) not in rounds:
                    rounds.add(name)
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)


def test_two_processes_of_which_some_are_killed(cli: Cli, scan: Path, tmp_path: Path) -> None:
    """[TILE-005] The picture is identical to that of a quiet run; figures, report and pictures are there."""
    code, out, err = cli("reconstruct", str(scan), "-o", str(tmp_path / "quiet"), *FLAGS, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert {"product", "phase", "amplitude", "probe", "sidecar", "story", "report"} <= set(result["files"])
    assert result["figures"]["explains the data"] == "yes"
    ended, killed = threading.Event(), list[int]()
    killer = threading.Thread(target=kill_workers, args=(ended, killed))
    killer.start()
    try:
        code, _, err = cli("reconstruct", str(scan), "-o", str(tmp_path / "killed"), *FLAGS, "--workers", "2")
    finally:
        ended.set()
        killer.join()
    assert code == 0, err
    assert len(killed) >= 2
    quiet, other = (read_product(tmp_path / name / "reconstruction.h5").object for name in ("quiet", "killed"))
    np.testing.assert_array_equal(quiet, other)


def test_resume_without_tiles_is_refused(cli: Cli, scan: Path, tmp_path: Path) -> None:
    """[TILE-007]"""
    code, _, err = cli("reconstruct", str(scan), "-o", str(tmp_path / "out"), "--resume")
    assert code == 2
    assert "Only a scan in tiles can be resumed" in err
