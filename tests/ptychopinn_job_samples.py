"""Functions for the tests of jobs, in a package by whose name a task may call them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.errors import Cancelled, DataError
from ptychopinn.monitor import NULL_MONITOR, Monitor

_SLEEP = "import time; time.sleep(60)"
_TAKE = "import time\na = bytearray(b'x') * ({} * 2**20)\ntime.sleep({})"


@dataclass(frozen=True)
class Found:
    """A result that JSON has no word for."""

    path: Path
    number: Any


def add(a: float, b: float, monitor: Monitor = NULL_MONITOR) -> Found:
    """Say something in every way there is, and return a sum."""
    print('printed {"event": "log"}')
    os.write(1, b"written\n")
    logging.getLogger("ptychopinn.samples").info("adding %g", a)
    monitor.report("add", 1, 2, {"loss": float("nan")})
    return Found(Path("somewhere"), np.float32(a + b))


def say_where() -> int:
    """Print something, and return the number of the process."""
    print("I am here")
    return os.getpid()


def fail(how: str) -> None:
    """Fail."""
    if how == "refused":
        raise DataError("The file is bad.", "Mend it.")
    if how == "memory":
        raise MemoryError
    if how == "exit":
        print("going away")
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), 9)
    raise ValueError("nobody expected this")


def take(mib: int, seconds: float, *, child: bool = False) -> None:
    """Hold memory for a while, here or in a child."""
    code = _TAKE.format(mib, seconds)
    if child:
        subprocess.run([sys.executable, "-c", code], check=False)
    else:
        exec(code)


def leave_child() -> int:
    """Start a process, which is left to live on."""
    return subprocess.Popen([sys.executable, "-c", _SLEEP]).pid


def sleep(monitor: Monitor, seconds: float = 60, *, with_child: bool = False) -> None:
    """Sleep, whatever the monitor says."""
    monitor.report("sleep", leave_child() if with_child else 0)
    time.sleep(seconds)


def work(monitor: Monitor, saves: str) -> str:
    """Work until it is cancelled, then save something."""
    while not monitor.cancelled:
        monitor.report("work", 1)
        time.sleep(0.02)
    if not saves:
        raise Cancelled("There is nothing to save.")
    Path(saves).write_text("saved")
    return saves


def note(path: str, name: str = "job", seconds: float = 0.0, *, deaths: int = 0, out_of_memory: bool = False) -> int:
    """Note begin and end in a file; die, or run out of memory, the first times."""
    with Path(path).open("a") as file:
        file.write(f"begin {name}\n")
    tries = Path(path).read_text().count(f"begin {name}\n")
    time.sleep(seconds)
    if tries <= deaths:
        if out_of_memory:
            raise MemoryError
        os.kill(os.getpid(), 9)
    with Path(path).open("a") as file:
        file.write(f"end {name}\n")
    return tries


def place() -> tuple[list[int], str]:
    """The cores and the GPUs of this process."""
    return sorted(os.sched_getaffinity(0)), os.environ.get("CUDA_VISIBLE_DEVICES", "")
