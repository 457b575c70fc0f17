"""Workflows called from event loops, several threads, and processes of other programs: specs/21-running.md."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_distribution

from ptychopinn.asynchronous import run_in_thread
from ptychopinn.bundle import read_bundle
from ptychopinn.comparison import compare_run
from ptychopinn.config.run import AllSettings
from ptychopinn.errors import DataError
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.workflows import run_settings, train_run

LONG = {"nepochs": 100_000, "probe_refinement": 0}


def settings(**train: Any) -> Any:
    return run_settings("numpy", train={"nepochs": 3, "probe_refinement": 0} | train)


def when_training(act: Callable[[], object]) -> Callable[[Progress], None]:
    """Calls a function at the first steps of a training."""
    return lambda progress: act() if progress.stage == "train" and progress.done > 2 else None


def test_a_coroutine_that_is_cancelled_keeps_the_model(scan_file: Path, tmp_path: Path) -> None:
    """[RUN-060] And is cancelled all the same; the event loop goes on meanwhile."""

    async def main() -> int:
        begun, turns = asyncio.Event(), 0
        loop = asyncio.get_running_loop()
        monitor = Monitor(when_training(lambda: loop.call_soon_threadsafe(begun.set)))
        work = asyncio.create_task(
            run_in_thread(train_run, scan_file, tmp_path / "run", settings(**LONG), monitor=monitor)
        )
        while not begun.is_set():
            await asyncio.sleep(0.01)
            turns += 1
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        return turns

    assert asyncio.run(main()) > 1
    assert read_bundle(tmp_path / "run" / "wts.h5.zip").weights


def test_a_coroutine_returns_or_raises_what_the_work_does(scan_file: Path, tmp_path: Path) -> None:
    """[RUN-060]"""
    result = asyncio.run(run_in_thread(train_run, scan_file, tmp_path / "run", settings()))
    assert result.files["product"].is_file()
    (tmp_path / "none.npz").write_text("no scan")
    with pytest.raises(DataError, match=r"none\.npz"):
        asyncio.run(run_in_thread(train_run, tmp_path / "none.npz", tmp_path / "other", settings()))


@pytest.mark.slow
def test_two_runs_at_a_time_are_apart(scan_file: Path, tmp_path: Path) -> None:
    """[RUN-061] Each has its progress, its log, its end, and the weights that it has alone."""
    train_run(scan_file, tmp_path / "alone", settings(seed=3))
    both = threading.Barrier(2, timeout=60)
    seen: dict[str, set[str]] = {"stopped": set(), "whole": set()}

    def run(name: str, train: dict[str, Any]) -> Any:
        def note(progress: Progress) -> None:
            seen[name].add(progress.stage)
            if progress.stage == "train" and progress.done == 1:
                both.wait()
            if name == "stopped" and progress.stage == "train" and progress.done > 2:
                monitor.cancel()

        monitor = Monitor(note)
        return train_run(scan_file, tmp_path / name, settings(**train), monitor=monitor)

    with ThreadPoolExecutor(2) as pool:
        stopped = pool.submit(run, "stopped", {"seed": 4, **LONG})
        whole = pool.submit(run, "whole", {"seed": 3})
        figures = stopped.result().figures["training"], whole.result().figures["training"]
    assert figures == ("cancelled", "finished")
    assert "predict" not in seen["stopped"]
    assert "predict" in seen["whole"]
    weights, expected = (read_bundle(tmp_path / name / "wts.h5.zip").weights for name in ("whole", "alone"))
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)
    logs = {name: (tmp_path / name / "run.log").read_text() for name in seen}
    assert "it was cancelled" in logs["stopped"]
    assert "all epochs are done" not in logs["stopped"]
    assert "all epochs are done" in logs["whole"]
    assert "it was cancelled" not in logs["whole"]


def work_of_a_child(folder: str, scan: str, search: list[str]) -> None:
    """A training, and a comparison, which starts processes."""
    sys.path[:] = search
    train_run(scan, Path(folder) / "run", settings())
    given = AllSettings(solver={"passes": 2}, comparison={"legs": ["epie"], "memory_mb": 4000})
    assert not compare_run(scan, scan, Path(folder) / "compared", given).failed


@pytest.mark.slow
def test_a_daemonic_process_may_call(scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[RUN-062] Started anew (spawn) by another program, it may start no process of multiprocessing itself."""
    toy_distribution.install_plugins(tmp_path, monkeypatch)
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # the child gets this path, and finds this module by it
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
    child = multiprocessing.get_context("spawn").Process(
        target=work_of_a_child, args=(str(tmp_path), str(scan_file), sys.path), daemon=True
    )
    child.start()
    child.join(120)
    assert child.exitcode == 0
    assert (tmp_path / "run" / "reconstruction.h5").is_file()
