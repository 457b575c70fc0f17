"""Jobs on the workers of a Dask cluster: specs/20-jobs.md."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask_processes import DaskProcesses, dask_processes, when_begun

from ptychopinn.errors import Cancelled, PluginError, ResourceError, UsageError
from ptychopinn.jobs import Job, JobError, Task, run_jobs
from ptychopinn.jobs.dask import DaskWorkers
from ptychopinn.monitor import NULL_MONITOR, Monitor

pytestmark = pytest.mark.slow


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path) as processes:
        yield processes


def job(folder: Path, name: str, function: str = "note", **arguments: Any) -> Job:
    return Job(name, Task(f"ptychopinn_job_samples:{function}", arguments), folder / "jobs" / name)


def test_lost_workers_and_a_lost_scheduler(dask: DaskProcesses, tmp_path: Path) -> None:
    """[JOB-010] Jobs of a lost worker are done again; without a scheduler an error says to resume."""
    scheduler, first = dask.begin_scheduler(), dask.begin_worker()
    with DaskWorkers(dask.address) as workers:
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
        when_begun(lost, lambda: (first.kill(), dask.begin_worker()))
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
    with DaskWorkers(dask.address) as workers:  # the worker is free again, because the cancelled job ended
        after = tmp_path / "after"
        ((_, tries),) = run_jobs([job(tmp_path, "after", path=str(after))], workers, retries=0, monitor=Monitor())
        assert tries == 1
        assert time.monotonic() - began < 40
        gone = tmp_path / "gone"
        when_begun(gone, scheduler.kill)
        with pytest.raises(ResourceError, match="is gone.*continue with --resume"):
            list(run_jobs([job(tmp_path, "gone", path=str(gone), seconds=60)], workers, retries=1, monitor=Monitor()))


def test_workers_that_would_do_several_at_a_time_are_refused(dask: DaskProcesses) -> None:
    """[JOB-010]"""
    dask.begin_scheduler()
    dask.begin_worker(threads=2)
    end = time.monotonic() + 60
    with pytest.raises(UsageError, match=r"has 2 threads.*--nthreads 1"):
        while time.monotonic() < end:  # until the worker has come
            with DaskWorkers(dask.address):
                time.sleep(0.2)


def test_no_scheduler_is_an_error(dask: DaskProcesses) -> None:
    """[JOB-010]"""
    with pytest.raises(ResourceError, match="There is no Dask scheduler"), DaskWorkers(dask.address, 0.5):
        pass
    with pytest.raises(ResourceError, match="There is no Dask scheduler"), DaskWorkers("nonsense://host"):
        pass


def test_without_dask_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """[JOB-010]"""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(PluginError, match=r"pip install '\.\[dask\]'"), DaskWorkers("tcp://127.0.0.1:1"):
        pass
