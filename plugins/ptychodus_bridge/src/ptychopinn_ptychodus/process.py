"""The worker process as its parent sees it."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import IO, Any

from ptychopinn.errors import PtychoPinnError
from ptychopinn_ptychodus.jobs import Job, parse_event

_TAIL_LINES = 40


class WorkerError(PtychoPinnError):
    """The worker failed or was killed.

    Attributes
    ----------
    details:
        Its last lines, for the dialog.
    """

    def __init__(self, problem: str, remedy: str = "", details: str = "") -> None:
        super().__init__(problem, remedy)
        self.details = details


class Worker:
    """A running job. Use as a context manager: leaving it ends the process, unless it was `leave`-d alone.

    Parameters
    ----------
    job:
        What to do; written into its scratch folder.
    """

    def __init__(self, job: Job) -> None:
        path = job.scratch / "job.json"
        path.write_text(job.model_dump_json(), "utf-8")
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._left = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ptychopinn_ptychodus.worker", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # Ctrl-C in the terminal is for Ptychodus, which tells the worker
        )
        self._readers = [
            threading.Thread(target=self._read_events, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._left:
            self.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def next_event(self, timeout_s: float) -> dict[str, Any] | None:
        """The next event, or None if none came in time."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    @property
    def exit_code(self) -> int | None:
        """Of the process; None while it lives."""
        return self._process.poll()

    @property
    def ended(self) -> bool:
        """Whether the process is gone and all it said has been taken."""
        if self._process.poll() is None:
            return False
        for reader in self._readers:
            reader.join(timeout=2.0)
        return self._events.empty()

    def stop(self) -> None:
        """Ask it to stop."""
        with contextlib.suppress(OSError):  # it is gone already
            assert self._process.stdin is not None
            self._process.stdin.write(b"stop\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """End it and whatever it started, now."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def leave(self) -> None:
        """Let it finish by itself; it ends in time after `stop`, also when this process is gone."""
        self._left = True

    def failure(self) -> WorkerError:
        """How it died, when it said nothing itself."""
        code = self._process.poll()
        if code is not None and code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = "an unknown signal"
            how = f"was killed by signal {-code} ({name}), exit code {code}"
            remedy = (
                "If nobody killed it, memory ran out: lower batch_size, or use a machine with more."
                if code == -9
                else ""
            )
        else:
            how, remedy = f"ended with exit code {code} before it was done", ""
        return WorkerError(f"The worker process {self.pid} {how}.", remedy, self.tail)

    @property
    def tail(self) -> str:
        """Its last lines."""
        return "\n".join(self._tail)

    def _read_events(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed under us
            for line in stream:
                found = parse_event(line)
                if found is None:
                    self._tail.append(line.decode("utf-8", "replace").rstrip())
                    continue
                if found["event"] == "log":
                    self._tail.append(f"{logging.getLevelName(found['level'])}: {found['message']}")
                self._events.put(found)

    def _read_errors(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in stream:
                self._tail.append(line.decode("utf-8", "replace").rstrip())


def _environment() -> dict[str, str]:
    """The worker finds the modules that this process finds, and no Qt platform is forced on it."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(p)) for p in sys.path if p)
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
