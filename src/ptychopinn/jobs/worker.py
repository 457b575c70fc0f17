"""The process of a job: ``python -m ptychopinn.jobs.worker TASK.json``.

It does one task and ends, so that every job has a clean device and its memory is free afterwards. Events are written to
the original standard output; all other output goes to the standard error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from ptychopinn.errors import Cancelled, PtychoPinnError
from ptychopinn.failures import explained
from ptychopinn.jobs.protocol import STOP, STOP_FAILED, Task, encode
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


def main(path: str) -> int:
    """Do a task; exit codes are those of the command line."""
    channel = _Channel(os.dup(1))
    os.dup2(2, 1)  # frameworks print, which must not mix with the events
    monitor, task = Monitor(channel.report), None
    try:
        task = Task.read(Path(path))
        os.environ.update(task.environment)
        if task.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, task.cores)
        threading.Thread(target=_listen, args=(monitor, task.stop_s), daemon=True).start()
        logging.basicConfig(format="%(levelname)s: %(message)s")
        logging.getLogger().addHandler(_ChannelHandler(channel))
        logging.getLogger("ptychopinn").setLevel(logging.INFO)
        channel.send("result", value=task.call(monitor))
    except BaseException as error:  # reported to the parent, then the process ends
        if not isinstance(error, Cancelled):
            traceback.print_exc()
        error_to_show = explained(error)
        refused = isinstance(error, PtychoPinnError)
        channel.send(
            "error",
            problem=error_to_show.problem,
            remedy=error_to_show.remedy,
            exit_code=error_to_show.exit_code,
            refused=refused,
        )
        return error_to_show.exit_code
    finally:
        if monitor.cancelled and task is not None and task.scratch:  # the parent may have ended
            shutil.rmtree(Path(path).parent, ignore_errors=True)
    return 0


def _listen(monitor: Monitor, stop_s: float) -> None:
    """Cancel on "stop" or when the parent ends; then make sure that this process ends in time."""
    with contextlib.suppress(OSError):
        while sys.stdin.buffer.readline() not in (STOP, b""):
            pass
    if not stop_s:
        os._exit(STOP_FAILED)
    monitor.cancel()
    watchdog = threading.Timer(stop_s, os._exit, args=(STOP_FAILED,))
    watchdog.daemon = True
    watchdog.start()


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without the exit handlers of frameworks, which may hang
