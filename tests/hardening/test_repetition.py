"""Many trainings and inferences in one process: specs/21-running.md."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import infer_run, run_settings, train_run


def held() -> dict[str, int]:
    """What this process holds: open files, threads, handlers of the log, memory in MiB."""
    gc.collect()
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    anonymous = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return {
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "handlers": len(logging.getLogger("ptychopinn").handlers),
        "MiB": anonymous // 1024,
    }


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list what a process holds")
def test_repeated_runs_hold_nothing(
    long: bool, figure: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[RUN-040]"""
    from importlib.metadata import EntryPoint

    from ptychopinn.plugins import GROUP, discover

    registry = discover(found=[EntryPoint("numpy", "numpy_backend", GROUP)])
    for module in ("_train", "_backends"):
        monkeypatch.setattr(f"ptychopinn.workflows.{module}.discover", lambda: registry)
    monkeypatch.setattr("ptychopinn.workflows._outputs.write_pictures", lambda *args, **kwargs: {})
    write_scan(tmp_path / "scan.npz", simulate_scan(SimulationConfig(N=32, rows=4, cols=4)))
    settings = run_settings("numpy", train={"nepochs": 1, "probe_refinement": 0})

    def runs(count: int) -> dict[str, int]:
        for _ in range(count):
            train_run(tmp_path / "scan.npz", tmp_path / "run", settings, overwrite=True)
            infer_run(tmp_path / "run", tmp_path / "scan.npz", tmp_path / "out", overwrite=True)
        return held()

    before, count = runs(4), 5000 if long else 12
    after = runs(count)
    figure(f"{2 * count} runs in one process: {before} before, {after} after")
    for what in ("files", "threads", "handlers"):
        assert after[what] <= before[what], what
    assert after["MiB"] <= before["MiB"] + 8
