"""The protocol between a job and its parent.

The task is a file of JSON. Events are lines of JSON on the worker's standard output, by the key "event":

``progress``
    ``stage``, ``done``, ``total``, ``figures``: as in `ptychopinn.monitor.Progress`.
``log``
    ``name``, ``level``, ``message`` of a record.
``result``
    ``value``: the return value of the function. It is the last event, like ``error``.
``error``
    ``problem``, ``remedy``, ``exit_code``, ``refused``: as in `JobError`.

A line "stop" on the worker's standard input, or its end (when the parent ends), ends the work. After a task that stays,
a line with the path of another task's file, in JSON, begins that one.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptychopinn.errors import PtychoPinnError, UsageError
from ptychopinn.monitor import NULL_MONITOR, Monitor

TASK, LOG = "task.json", "job.log"  # in the folder of a job
STOP = b"stop\n"
STOP_FAILED = 124  # exit code of a worker that could not end its work in time

Event = dict[str, Any]


class JobError(PtychoPinnError):
    """A job failed, or its process ended before it was done.

    Parameters
    ----------
    exit_code:
        As on the command line.
    details:
        The last lines of its log.
    refused:
        Whether this software refused something with an error message, which is then sufficient.
    """

    def __init__(
        self, problem: str, remedy: str = "", *, exit_code: int = 1, details: str = "", refused: bool = False
    ) -> None:
        super().__init__(problem, remedy)
        self.exit_code, self.details, self.refused = exit_code, details, refused

    def __reduce__(self) -> tuple[Any, ...]:
        return *super().__reduce__(), vars(self)


class JobDied(JobError):
    """The process of a job ended before it was done: it was killed, or its machine was lost."""


class JobOverLimit(JobError):
    """A job used up its own limit of memory or time."""


@dataclass(frozen=True)
class JobLimits:
    """What a job may use; None is no limit."""

    memory_mb: float | None = None  # MiB of the anonymous memory of all its processes
    seconds: float | None = None  # wall time


NO_LIMITS = JobLimits()


@dataclass(frozen=True)
class Task:
    """A function to call in another process."""

    # "module:name" in a package of this software: ``ptychopinn``, or one whose name begins with ``ptychopinn_``.
    function: str
    # Its keyword arguments, plain values. A ``monitor`` is added if the function takes one.
    arguments: Mapping[str, Any]
    stop_s: float = 0.0  # seconds to end the work after a stop; 0 ends the process at once
    scratch: bool = False  # whether the worker removes its folder after a stop
    # Variables of its process, set before the function is imported.
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: Sequence[int] = ()  # numbers of the processor cores that its process may use; empty: as its parent
    stays: bool = False  # whether its process waits for another task after a result

    def write(self, folder: Path) -> Path:
        """Write the task into the folder of its job."""
        path = folder / TASK
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2, default=plain) + "\n", "utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Task:
        """Read a task."""
        return cls(**json.loads(path.read_text("utf-8")))

    def call(self, monitor: Monitor = NULL_MONITOR) -> Any:
        """Import and call the function in this process.

        Raises
        ------
        UsageError
            If it is not in a package of this software.
        """
        module, _, name = self.function.partition(":")
        package = module.partition(".")[0]
        if package != "ptychopinn" and not package.startswith("ptychopinn_"):
            raise UsageError(f"The task names {self.function}.", "Name a function of ptychopinn or of a ptychopinn_*.")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        takes_monitor = "monitor" in inspect.signature(function).parameters
        return function(**self.arguments, **({"monitor": monitor} if takes_monitor else {}))


def plain(value: Any) -> Any:
    """Convert a value for JSON: dataclasses to mappings, NumPy numbers and arrays to Python's, others to text."""
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value.tolist() if hasattr(value, "tolist") else str(value)


def encode(kind: str, **content: Any) -> bytes:
    """Encode an event as a line."""
    return json.dumps({"event": kind, **content}, default=plain).encode() + b"\n"


def decode(line: bytes) -> Event | None:
    """Decode the event in a line; None for any other text."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None
