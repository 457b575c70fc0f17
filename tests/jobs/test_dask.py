"""Jobs on the workers of a Dask cluster: specs/20-jobs.md."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.config.run import AllSettings
from ptychopinn.data.io import write_scan
from ptychopinn.errors import Cancelled, PluginError, ResourceError, UsageError
from ptychopinn.jobs import Job, JobError, Task, run_jobs
from ptychopinn.jobs.dask import DaskWorkers
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan
from ptychopinn.tiled import tiled_run

pytestmark = pytest.mark.slow
Start = Callable[..., subprocess.Popen[bytes]]
_PROGRAM = "from distributed.cli.dask_{} import main; main()"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a scheduler or a worker, and ends it."""
    pytest.importorskip("distributed", reason="Dask is not installed")
    begun = []
    search = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])

    def start(kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _PROGRAM.format(kind), "--no-dashboard", *arguments]
        environment = {**os.environ, "PYTHONPATH": search, "DASK_TEMPORARY_DIRECTORY": str(tmp_path)}
        with (tmp_path / "dask.log").open("ab") as log:
            begun.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


@pytest.fixture
def address() -> str:
    """Of a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


def begin_scheduler(start: Start, address: str) -> subprocess.Popen[bytes]:
    return start("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2])


def begin_worker(start: Start, address: str, threads: int = 1) -> subprocess.Popen[bytes]:
    return start("worker", address, "--nthreads", str(threads), "--no-nanny")


def job(folder: Path, name: str, function: str = "note", **arguments: Any) -> Job:
    return Job(name, Task(f"ptychopinn_job_samples:{function}", arguments), folder / "jobs" / name)


def when_begun(path: Path, act: Callable[[], object]) -> threading.Thread:
    """Do something when a job has noted its begin."""

    def wait() -> None:
        while not path.exists():
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_lost_workers_and_a_lost_scheduler(start: Start, address: str, tmp_path: Path) -> None:
    """[JOB-010] Jobs of a lost worker are done again; without a scheduler an error says to resume."""
    scheduler, first = begin_scheduler(start, address), begin_worker(start, address)
    with DaskWorkers(address) as workers:
        jobs = [
            job(tmp_path, "killed", path=str(tmp_path / "killed"), deaths=1),
            job(tmp_path, "refused", "fail", how="refused"),
        ]
        found = {one.name: value for one, value in run_jobs(jobs, workers, retries=1, monitor=NULL_MONITOR)}
        assert found["killed"] == 2
        assert isinstance(found["refused"], JobError)
        assert found["refused"].refused
        assert "The file is bad" in found["refused"].problem

        lost = tmp_path / "lost"
        when_begun(lost, lambda: (first.kill(), begin_worker(start, address)))
        ((_, tries),) = run_jobs(
            [job(tmp_path, "lost", path=str(lost), seconds=2)], workers, retries=1, monitor=Monitor()
        )
        assert tries == 2

        monitor, stopped = Monitor(), tmp_path / "stopped"
        when_begun(stopped, monitor.cancel)
        slow = job(tmp_path, "stopped", path=str(stopped), seconds=60)
        with pytest.raises(Cancelled):
            list(run_jobs([slow], workers, retries=1, monitor=monitor))
    began = time.monotonic()
    with DaskWorkers(address) as workers:  # the worker is free again, because the cancelled job ended
        after = tmp_path / "after"
        ((_, tries),) = run_jobs([job(tmp_path, "after", path=str(after))], workers, retries=0, monitor=Monitor())
        assert tries == 1
        assert time.monotonic() - began < 40
        gone = tmp_path / "gone"
        when_begun(gone, scheduler.kill)
        with pytest.raises(ResourceError, match="is gone.*continue with --resume"):
            list(run_jobs([job(tmp_path, "gone", path=str(gone), seconds=60)], workers, retries=1, monitor=Monitor()))


def test_a_scan_in_tiles_loses_a_worker_and_its_scheduler(start: Start, address: str, tmp_path: Path) -> None:
    """[TILE-005] [TILE-006] [JOB-010] Resumed with a new scheduler, it gives the picture of this machine."""
    scan, out = tmp_path / "scan.npz", tmp_path / "out"
    write_scan(scan, simulate_scan(SimulationConfig(N=32, rows=14, cols=12, seed=3)))
    tiles, automatic = {"tiles": 2, "passes": 2}, {"may_free": []}
    by_dask = AllSettings(tiles={**tiles, "scheduler": address}, automatic=automatic)
    scheduler, first = begin_scheduler(start, address), begin_worker(start, address)
    when_begun(out / "tiles/start/tile-0000/task.json", lambda: (first.kill(), begin_worker(start, address)))
    when_begun(out / "tiles/pass-001/tile-0000/result.json", scheduler.kill)
    with pytest.raises(ResourceError, match="is gone.*continue with --resume"):
        tiled_run(scan, out, by_dask)
    begin_scheduler(start, address)
    begin_worker(start, address)
    resumed = tiled_run(scan, out, by_dask, resume=True)
    here = tiled_run(scan, tmp_path / "here", AllSettings(tiles=tiles, automatic=automatic))
    one, other = (read_product(found.files["product"]).object for found in (resumed, here))
    np.testing.assert_array_equal(one, other)


def test_workers_that_would_do_several_at_a_time_are_refused(start: Start, address: str) -> None:
    """[JOB-010]"""
    begin_scheduler(start, address)
    begin_worker(start, address, threads=2)
    end = time.monotonic() + 60
    with pytest.raises(UsageError, match=r"has 2 threads.*--nthreads 1"):
        while time.monotonic() < end:  # until the worker has come
            with DaskWorkers(address):
                time.sleep(0.2)


def test_no_scheduler_is_an_error(address: str) -> None:
    """[JOB-010]"""
    pytest.importorskip("distributed", reason="Dask is not installed")
    with pytest.raises(ResourceError, match="There is no Dask scheduler"), DaskWorkers(address, 0.5):
        pass
    with pytest.raises(ResourceError, match="There is no Dask scheduler"), DaskWorkers("nonsense://host"):
        pass


def test_without_dask_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """[JOB-010]"""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(PluginError, match=r"pip install '\.\[dask\]'"), DaskWorkers("tcp://127.0.0.1:1"):
        pass
