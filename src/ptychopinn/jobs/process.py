"""The process of a job, for its parent."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ptychopinn.errors import Cancelled, UsageError
from ptychopinn.jobs.memory import is_stopped
from ptychopinn.jobs.protocol import LOG, STOP, STOP_FAILED, Event, JobDied, JobError, Task, decode

_WORKER = "ptychopinn.jobs.worker"
_READ_BYTES = 1 << 16
_TERMINATE_S = 0.5  # grace period before the process is killed
_TICK_S = 0.02
_TAIL_LINES, _TAIL_BYTES = 40, 1 << 14
_LOOK_S = 1.0  # interval of looking whether the process is stopped
_MAX_STOPPED_S = 10.0


class JobProcess:
    """A task in a fresh Python process. A context manager, which ends the process and its descendants.

    ``folder`` gets the task and the log, the standard error of the process.
    """

    def __init__(self, task: Task, folder: Path) -> None:
        if not hasattr(os, "killpg"):
            raise UsageError("Work in a process of its own needs Linux or macOS.", "On Windows use WSL.")
        self._task, self._log = task, folder / LOG
        self._pending: list[Event] = []
        self._last: Event | None = None  # the result or the error
        self._rest, self._open = b"", True
        self._looked, self._stopped_s = time.monotonic(), 0.0
        command = [sys.executable, "-P", "-m", _WORKER, str(task.write(folder))]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
                start_new_session=True,  # Ctrl-C goes only to the parent, which tells the worker
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)

    def __enter__(self) -> JobProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def waits(self) -> bool:
        """Whether it has done its task, and waits for another one."""
        return self._open and self._task.stays and self._last is not None and self._last["event"] == "result"

    def begin(self, task: Task, folder: Path) -> bool:
        """Give a process that waits its next task. False if it has ended in the meantime."""
        if self.has_ended:
            return False
        self._task, self._log, self._last = task, folder / LOG, None
        try:
            self._stdin.write(json.dumps(str(task.write(folder).absolute())).encode("ascii") + b"\n")
            self._stdin.flush()
        except BrokenPipeError:
            return False
        return True

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        if not self._open:
            return self._process.poll() is not None
        if not hasattr(os, "waitid"):  # on macOS
            return self._process.poll() is not None
        # Not waited for before `close`, so that the ids of the process and its group stay valid until then.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def read(self, timeout_s: float) -> list[Event]:
        """The new progress and log records; waits for the first one up to a time.

        Raises
        ------
        JobDied
            If the process has been stopped for ten seconds, by a signal or a debugger: it does not work and cannot end.
        """
        if self._open:
            self._check_not_stopped()
        if self._open and not self._pending:
            if self._selector.get_map():
                self._receive(timeout_s)
            else:
                time.sleep(min(timeout_s, _TICK_S))
        found, self._pending = self._pending, []
        return found

    def stop(self) -> None:
        """Ask the process to stop."""
        with contextlib.suppress(OSError):  # it is gone already
            self._stdin.write(STOP)
            self._stdin.flush()

    def leave(self) -> None:
        """Detach: let it stop by itself within the time of its task, even after this process has ended."""
        self._close_pipes()

    def close(self) -> None:
        """End the process and its descendants now."""
        if not self._open:
            return
        self._signal(signal.SIGTERM)
        end = time.monotonic() + _TERMINATE_S
        while not self.has_ended and time.monotonic() < end:
            time.sleep(_TICK_S)
        self._signal(signal.SIGKILL)  # also its descendants
        self._process.wait()
        while self._selector.get_map() and self._receive(0):
            pass
        self._close_pipes()

    def end_unless_it_waits(self) -> None:
        """End the process and its descendants now, unless it waits for another task."""
        if not self.waits:
            self.close()

    def value(self) -> Any:
        """The return value of the function; ends the process, unless it waits for another task.

        Raises
        ------
        Cancelled
            If it was cancelled before it had a result.
        JobDied
            If its process ended without a result.
        JobError
            If it failed.
        """
        self.end_unless_it_waits()
        last = self._last
        if last is None:
            raise self._explain_end()
        if last["event"] == "result":
            return last["value"]
        if last["exit_code"] == Cancelled.exit_code:
            raise Cancelled(last["problem"], last["remedy"])
        raise JobError(
            last["problem"], last["remedy"], exit_code=last["exit_code"], details=self.tail(), refused=last["refused"]
        )

    def tail(self) -> str:
        """The last lines of the log."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:  # the worker removed it with its folder
            return ""
        return "\n".join(lines[-_TAIL_LINES:])

    def _check_not_stopped(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        # Time in which this process was stopped too does not count.
        elapsed, self._looked = min(now - self._looked, 2 * _LOOK_S), now
        self._stopped_s = self._stopped_s + elapsed if is_stopped(self.pid) else 0.0
        if self._stopped_s > _MAX_STOPPED_S:
            raise JobDied(
                f"The process {self.pid} is stopped (SIGSTOP, or a debugger) since {self._stopped_s:.0f} s.",
                "Find out what stops it, then start again.",
                details=self.tail(),
            )

    def _explain_end(self) -> JobDied:
        code, tail, remedy = self._process.returncode, self.tail(), ""
        if code == -signal.SIGKILL:
            how = "was killed by the system or a user (SIGKILL"
            remedy = "If no user killed it, memory ran out: lower batch_size, or use a machine with more."
        elif code < 0:
            how = f"was killed by {signal.strsignal(-code)} (signal {-code}"
        elif code == STOP_FAILED:
            how = f"did not stop within {self._task.stop_s:g} s, and what it had not saved is lost ("
        else:
            how = "ended before it was done ("
        words = f"The process {self.pid} {how}, exit code {code})".replace("(, ", "(")
        said = next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "nothing was printed")
        return JobDied(f"{words}: {said}" if code > 0 else f"{words}.", remedy, details=tail)

    def _receive(self, timeout_s: float) -> bool:
        """Read once, and return whether there was anything."""
        if not self._selector.select(timeout_s):
            return False
        read = os.read(self._stdout.fileno(), _READ_BYTES)
        if not read:  # closed: the process is about to end
            self._selector.unregister(self._stdout)
        *lines, self._rest = (self._rest + read).split(b"\n")
        for event in filter(None, map(decode, lines)):
            if event["event"] in ("result", "error"):
                self._last = event
            else:
                self._pending.append(event)
        return True

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _close_pipes(self) -> None:
        self._open = False
        self._selector.close()
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def _environment() -> dict[str, str]:
    """The environment of the worker, with the module search path of this process."""
    search = os.pathsep.join(path for path in map(str, sys.path) if path)
    return {**os.environ, "PYTHONPATH": search, "PYTHONUNBUFFERED": "1"}
