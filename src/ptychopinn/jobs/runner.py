"""A job from its start to its end, with a budget of memory and of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptychopinn.errors import Cancelled, ResourceError
from ptychopinn.jobs.memory import anonymous_mib, descendants
from ptychopinn.jobs.process import JobProcess
from ptychopinn.jobs.protocol import JobError, Task
from ptychopinn.monitor import NULL_MONITOR, Monitor

_TICK_SECONDS = 0.02
_SAMPLING_SHARE = 30  # a look at the memory takes no more than this part of the time: of many processes it is not cheap
_TREE_SECONDS = 0.25  # how often new processes are looked for


def run_job(
    task: Task,
    folder: Path,
    *,
    memory_mb: float | None = None,
    seconds: float | None = None,
    on_memory: Callable[[float], None] = lambda mib: None,
    monitor: Monitor = NULL_MONITOR,
) -> Any:
    """Do a task in a process of its own, and end that with all that it started.

    It ends early when a budget is used up or the monitor is cancelled.

    Parameters
    ----------
    task:
        What to do.
    folder:
        Gets the task and the log.
    memory_mb:
        MiB of anonymous memory of its processes, together.
    seconds:
        Wall time.
    on_memory:
        Called, up to fifty times a second, with the MiB of anonymous memory held.
    monitor:
        Told of its progress; asked at every tick.

    Returns
    -------
    What the function returned, as JSON has it.

    Raises
    ------
    Cancelled
        If the monitor was cancelled.
    JobError
        If it failed, its process ended, or a budget was used up.
    """
    start = time.monotonic()
    with JobProcess(task, folder) as job:
        tree, looked, due = [job.pid], start, start
        while not job.has_ended:
            for event in job.read(_TICK_SECONDS):
                _report(event, monitor)
            now = time.monotonic()
            if monitor.cancelled:
                raise Cancelled("The job was cancelled.")
            if seconds is not None and now - start > seconds:
                raise JobError(f"The job is out of time: {seconds:g} s.", "Give it more.", details=job.tail())
            if now - looked > _TREE_SECONDS:
                tree, looked = descendants(job.pid), now
            if now < due:
                continue
            held = anonymous_mib(tree)
            due = now + _SAMPLING_SHARE * (time.monotonic() - now)
            if held is not None:
                on_memory(held)
                if memory_mb is not None and held > memory_mb:
                    raise JobError(
                        f"The job is out of memory: {held:.0f} MiB of anonymous memory, the budget is {memory_mb:.0f}.",
                        "Give it more, or lower its batch size.",
                        exit_code=ResourceError.exit_code,
                        details=job.tail(),
                    )
        job.close()
        for event in job.read(0):
            _report(event, monitor)
        return job.value()


def _report(event: dict[str, Any], monitor: Monitor) -> None:
    if event["event"] == "progress":
        monitor.report(event["stage"], event["done"], event["total"], event["figures"])
