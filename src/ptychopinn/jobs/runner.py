"""Run a job with limits on memory and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptychopinn.errors import Cancelled, ResourceError
from ptychopinn.jobs.memory import anonymous_mib, descendants
from ptychopinn.jobs.process import JobProcess
from ptychopinn.jobs.protocol import NO_LIMITS, JobLimits, JobOverLimit, Task
from ptychopinn.monitor import NULL_MONITOR, Monitor

_TICK_SECONDS = 0.02
_SAMPLING_SHARE = 30  # measuring memory takes at most 1/30 of the time; it is slow for many processes
_TREE_SECONDS = 0.25  # interval of the search for new processes


def run_job(
    task: Task,
    folder: Path,
    *,
    limits: JobLimits = NO_LIMITS,
    on_memory: Callable[[float], None] = lambda mib: None,
    monitor: Monitor = NULL_MONITOR,
    staying: StayingProcess | None = None,
) -> Any:
    """Run a task in its own process, and end that process with its descendants.

    It ends early when a limit is exceeded or the monitor is cancelled.

    Parameters
    ----------
    folder:
        Folder of the task and the log.
    on_memory:
        Called up to fifty times a second with the anonymous memory in MiB.
    monitor:
        Gets progress, and can cancel.
    staying:
        Does it instead, and does not end after a result.

    Returns
    -------
    The return value of the function, as decoded from JSON.

    Raises
    ------
    Cancelled
        If the monitor was cancelled.
    JobError
        If it failed, or its process ended.
    JobOverLimit
        If it exceeded a limit.
    """
    start = time.monotonic()
    with JobProcess(task, folder) if staying is None else staying.at_work(task, folder) as job:
        tree, looked, due = [job.pid], start, start
        while not (job.has_ended or job.waits):
            for event in job.read(_TICK_SECONDS):
                _report(event, monitor)
            now = time.monotonic()
            if monitor.cancelled:
                raise Cancelled("The job was cancelled.")
            if limits.seconds is not None and now - start > limits.seconds:
                raise JobOverLimit(
                    f"The job is out of time: {limits.seconds:g} s.", "Give it more.", details=job.tail()
                )
            if now - looked > _TREE_SECONDS:
                tree, looked = descendants(job.pid), now
            if now < due:
                continue
            held = anonymous_mib(tree)
            due = now + _SAMPLING_SHARE * (time.monotonic() - now)
            if held is not None:
                on_memory(held)
                if limits.memory_mb is not None and held > limits.memory_mb:
                    raise JobOverLimit(
                        f"The job is out of memory: {held:.0f} MiB of anonymous memory, "
                        f"the budget is {limits.memory_mb:.0f}.",
                        "Give it more, or lower its batch size.",
                        exit_code=ResourceError.exit_code,
                        details=job.tail(),
                    )
        job.end_unless_it_waits()
        for event in job.read(0):
            _report(event, monitor)
        return job.value()


def _report(event: dict[str, Any], monitor: Monitor) -> None:
    if event["event"] == "progress":
        monitor.report(event["stage"], event["done"], event["total"], event["figures"])


class StayingProcess:
    """A process that does one task after another; a new one after each that failed."""

    def __init__(self) -> None:
        self._job: JobProcess | None = None

    def close(self) -> None:
        """End it and its descendants."""
        if self._job is not None:
            self._job.close()
            self._job = None

    @contextmanager
    def at_work(self, task: Task, folder: Path) -> Iterator[JobProcess]:
        """The process, which does this task."""
        task = replace(task, stays=True)
        if self._job is None or not self._job.begin(task, folder):
            self.close()
            self._job = JobProcess(task, folder)
        job = self._job
        try:
            yield job
        finally:
            if not job.waits:
                self.close()
