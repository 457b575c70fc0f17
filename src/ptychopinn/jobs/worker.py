"""The process of a job: ``python -m ptychopinn.jobs.worker TASK.json``.

It does one task and ends, so that every job has a clean device and its memory is free afterwards. If the task says so,
it waits for another one, because a process takes a second to start. Events are written to the original standard output;
all other output goes to the standard error, which is the log of the task.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import threading
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ptychopinn.errors import Cancelled, PtychoPinnError
from ptychopinn.failures import explained
from ptychopinn.jobs.protocol import LOG, STOP, STOP_FAILED, Task, encode
from ptychopinn.monitor import Monitor, Progress


class _Channel:
    """Sends events to the parent; thread-safe. A parent that has ended is not an error."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._lock = descriptor, threading.Lock()

    def send(self, kind: str, **content: Any) -> None:
        line = encode(kind, **content)
        with self._lock, contextlib.suppress(OSError):  # the work continues, because its results can be saved
            while line:
                line = line[os.write(self._descriptor, line) :]

    def report(self, progress: Progress) -> None:
        self.send("progress", **vars(progress))


class _ChannelHandler(logging.Handler):
    """Sends log records as events too."""

    def __init__(self, channel: _Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send("log", name=record.name, level=record.levelno, message=record.getMessage())


class _Orders:
    """What the parent says: other tasks, and to stop."""

    def __init__(self, monitor: Monitor, stop_s: float) -> None:
        self._tasks: SimpleQueue[str] = SimpleQueue()
        self.begin(monitor, stop_s)
        threading.Thread(target=self._listen, daemon=True).start()

    def begin(self, monitor: Monitor, stop_s: float) -> None:
        """Work begins; a stop cancels it by this monitor, and ends the process so many seconds later."""
        self._monitor, self._stop_s = monitor, stop_s

    def next_task(self) -> str:
        """Wait for the path of the next task, and make its log the standard error."""
        path = self._tasks.get()
        log = os.open(Path(path).with_name(LOG), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        os.close(log)
        return path

    def _listen(self) -> None:
        """Cancel on "stop" or when the parent ends; then make sure that this process ends in time."""
        with contextlib.suppress(OSError):
            while (line := sys.stdin.buffer.readline()) not in (STOP, b""):
                self._tasks.put(json.loads(line))
        if not self._stop_s:
            os._exit(STOP_FAILED)
        self._monitor.cancel()
        watchdog = threading.Timer(self._stop_s, os._exit, args=(STOP_FAILED,))
        watchdog.daemon = True
        watchdog.start()


def main(path: str) -> int:
    """Do a task, and those that follow; exit codes are those of the command line."""
    channel = _Channel(os.dup(1))
    os.dup2(2, 1)  # frameworks print, which must not mix with the events
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger().addHandler(_ChannelHandler(channel))
    logging.getLogger("ptychopinn").setLevel(logging.INFO)
    orders: _Orders | None = None
    while True:
        monitor, task = Monitor(channel.report), None
        try:
            task = Task.read(Path(path))
            os.environ.update(task.environment)
            if task.cores and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, task.cores)
            if orders is None:
                orders = _Orders(monitor, task.stop_s)
            else:
                orders.begin(monitor, task.stop_s)
            channel.send("result", value=task.call(monitor))
        except BaseException as error:  # reported to the parent, then the process ends
            return _report_error(error, channel)
        finally:
            if monitor.cancelled and task is not None and task.scratch:  # the parent may have ended
                shutil.rmtree(Path(path).parent, ignore_errors=True)
        if not task.stays:
            return 0
        path = orders.next_task()


def _report_error(error: BaseException, channel: _Channel) -> int:
    """Send an error to the parent; returns its exit code."""
    if not isinstance(error, Cancelled):
        traceback.print_exc()
    shown = explained(error)
    refused = isinstance(error, PtychoPinnError)
    channel.send("error", problem=shown.problem, remedy=shown.remedy, exit_code=shown.exit_code, refused=refused)
    return shown.exit_code


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without the exit handlers of frameworks, which may hang
