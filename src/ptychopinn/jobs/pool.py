"""Run many jobs in parallel; those whose process died, or whose machine ran out of memory or disk, are tried again."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, Self

from ptychopinn.cores import share_of_cores
from ptychopinn.errors import Cancelled, ResourceError
from ptychopinn.failures import explained
from ptychopinn.jobs.protocol import NO_LIMITS, JobDied, JobError, JobLimits, JobOverLimit, Task
from ptychopinn.jobs.runner import StayingProcess, run_job
from ptychopinn.monitor import LinkedMonitor, Monitor, Progress

_TICK_S = 0.1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A task, its name in messages, and the folder of its task file and log."""

    name: str
    task: Task
    folder: Path
    limits: JobLimits = NO_LIMITS
    # Called in another thread with its progress and its memory, MiB; never on a Dask cluster.
    on_progress: Callable[[Progress], None] | None = None
    on_memory: Callable[[float], None] | None = None


class Workers(Protocol):
    """Where jobs run. A context manager, which ends all of them."""

    one_at_a_time: bool
    """Whether no two jobs run side by side."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End all jobs."""

    def submit(self, job: Job) -> Future[Any]:
        """Run a job when a worker is free."""

    def value(self, future: Future[Any]) -> Any:
        """What an ended job returned, decoded from JSON. Raises JobError if it failed."""


def run_jobs(
    jobs: Iterable[Job], workers: Workers, *, retries: int, monitor: Monitor
) -> Iterator[tuple[Job, Any | JobError]]:
    """Run jobs, as many at a time as there are workers.

    A job whose process died, or whose machine ran out of memory or disk, is tried again. After it ran out, and when it
    is tried for the last time, it runs alone, after all others. A job that ran out alone is not tried again.

    Yields
    ------
    Each job with what it returned or why it failed, in the order in which they end.

    Raises
    ------
    Cancelled
        If the monitor was cancelled; jobs that had ended were yielded before.
    """
    waiting = {workers.submit(job): job for job in jobs}
    alone: deque[Job] = deque()
    was_alone: set[str] = set()
    tried: Counter[str] = Counter()
    while waiting or alone:
        if not waiting:
            job = alone.popleft()
            was_alone.add(job.name)
            waiting[workers.submit(job)] = job
        ended, _ = wait(waiting, _TICK_S, FIRST_COMPLETED)
        for future in ended:
            job = waiting.pop(future)
            try:
                found: Any | JobError = workers.value(future)
            except JobError as error:
                found = error
            hopeless = _ran_out(found) and (workers.one_at_a_time or job.name in was_alone)
            if hopeless or not (_ran_out(found) or isinstance(found, JobDied)) or tried[job.name] == retries:
                yield job, found
                continue
            tried[job.name] += 1
            _log.warning("%s: %s It is tried again (%d of %d).", job.name, found.problem, tried[job.name], retries)
            if _ran_out(found) or tried[job.name] == retries:
                alone.append(job)
            else:
                waiting[workers.submit(job)] = job
        if monitor.cancelled:
            raise Cancelled("The jobs were cancelled.")


def _ran_out(found: Any | JobError) -> bool:
    """Whether a job failed because its machine had no more memory or disk; its own `JobLimits` do not count."""
    ran_out = isinstance(found, JobError) and found.exit_code == ResourceError.exit_code
    return ran_out and not isinstance(found, JobOverLimit)


class LocalWorkers:
    """Processes on this machine. Each has its share of the cores, and a GPU of its own where there are some.

    Parameters
    ----------
    count:
        Jobs that run at a time.
    gpus:
        Names as in CUDA_VISIBLE_DEVICES, at least ``count``; empty where none is used.
    stay:
        Whether a process does one job after another, which saves its start; else each job has a fresh one.
    """

    def __init__(self, count: int, gpus: Sequence[str] = (), *, stay: bool = False) -> None:
        self.one_at_a_time = count == 1
        self._stop = Monitor()
        self._threads = ThreadPoolExecutor(count)
        self._free: SimpleQueue[_Place] = SimpleQueue()
        self._places = [
            _Place(
                {"CUDA_VISIBLE_DEVICES": gpus[number]} if gpus else {},
                share_of_cores(number, count),
                StayingProcess() if stay else None,
            )
            for number in range(count)
        ]
        for place in self._places:
            self._free.put(place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.cancel()
        self._threads.shutdown(cancel_futures=True)
        for place in self._places:
            if place.staying is not None:
                place.staying.close()

    def submit(self, job: Job) -> Future[Any]:
        """Run a job when a worker is free."""
        return self._threads.submit(self._run, job)

    def value(self, future: Future[Any]) -> Any:
        """What an ended job returned. Raises JobError if it failed."""
        return future.result()

    def _run(self, job: Job) -> Any:
        place = self._free.get()
        task = replace(job.task, environment=place.environment, cores=place.cores)
        try:
            return run_in_folder(replace(job, task=task), self._stop, place.staying)
        finally:
            self._free.put(place)


@dataclass(frozen=True)
class _Place:
    """Where one job at a time runs."""

    environment: dict[str, str]
    cores: tuple[int, ...]
    staying: StayingProcess | None  # None starts a process for each job


def run_in_folder(job: Job, monitor: Monitor, staying: StayingProcess | None = None) -> Any:
    """Create the folder of a job and run it there, in a process of its own or one that stays.

    Raises JobError if it failed, or the folder cannot be written to.
    """
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        return run_job(
            job.task,
            job.folder,
            limits=job.limits,
            on_memory=job.on_memory or (lambda mib: None),
            monitor=LinkedMonitor(monitor, job.on_progress),
            staying=staying,
        )
    except OSError as error:
        failure = explained(error)
        raise JobError(failure.problem, failure.remedy, exit_code=failure.exit_code, refused=True) from error
