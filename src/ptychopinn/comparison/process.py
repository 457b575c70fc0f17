"""A command in processes of its own, with a budget of memory and of time.

Memory is what the kernel counts as anonymous: of one process ``RssAnon``, of several their shares (``Pss_Anon``), so
that pages shared after a fork count once. Files that are mapped do not count: the kernel takes them back.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.typing import StrPath

_TICK_SECONDS = 0.02
_SAMPLING_SHARE = 30  # a look at the memory takes no more than this part of the time: of many processes it is not cheap
_TREE_SECONDS = 0.25  # how often new processes are looked for
_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes
    ----------
    returncode:
        Its exit code; negative is the number of the signal that ended it.
    reason:
        Why it was ended from here: a sentence, or nothing.
    seconds:
        Wall time.
    cancelled:
        Whether the monitor was cancelled.
    """

    returncode: int
    reason: str
    seconds: float
    cancelled: bool = False


def python_command(module: str, *arguments: StrPath) -> list[str]:
    """A command that runs ``main`` of a module in a Python of its own, with this one's search path."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; sys.exit(main(*sys.argv[1:]))"
    return [sys.executable, "-c", code, *map(str, arguments)]


def anonymous_mib(pids: Sequence[int]) -> float | None:
    """MiB of anonymous memory that processes hold now; None where the system does not tell."""
    total, known = 0, False
    for pid in pids:
        source, key = ("status", "RssAnon:") if len(pids) == 1 else ("smaps_rollup", "Pss_Anon:")
        try:
            text = Path(f"/proc/{pid}/{source}").read_text("ascii", "replace")
        except OSError:  # it has just ended
            continue
        found = next((line.split()[1] for line in text.splitlines() if line.startswith(key)), None)
        if found is not None:
            total, known = total + int(found), True
    return total / 1024 if known else None


def descendants(pid: int) -> list[int]:
    """A process and all that came of it."""
    tree, new = [pid], [pid]
    while new:
        children = []
        for parent in new:
            with suppress(OSError):
                for task in Path(f"/proc/{parent}/task").iterdir():
                    children += [int(word) for word in (task / "children").read_text("ascii").split()]
        new = [child for child in children if child not in tree]
        tree += new
    return tree


def available_mib() -> int | None:
    """MiB of memory that are free; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:")), None)


def run_limited(
    command: Sequence[str],
    *,
    log: Path,
    memory_mb: float | None = None,
    seconds: float | None = None,
    on_line: Callable[[str], None] = lambda line: None,
    on_memory: Callable[[float], None] = lambda mib: None,
    monitor: Monitor = NULL_MONITOR,
) -> Ended:
    """Run a command; end it, and all that it started, when a budget is used up or the monitor is cancelled.

    Parameters
    ----------
    command:
        Program and arguments. Its standard input is a pipe that closes when this process ends: it should then end.
    log:
        File that its standard error is added to.
    memory_mb:
        MiB of anonymous memory of its processes, together.
    seconds:
        Wall time.
    on_line:
        Called with every line of its standard output.
    on_memory:
        Called, up to fifty times a second, with the MiB of anonymous memory held.
    monitor:
        Asked at every tick.
    """
    start = time.monotonic()
    reason, cancelled, rest = "", False, b""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            tree, looked, due = [process.pid], start, start
            while not (reason or cancelled or _has_ended(process.pid)):
                if selector.select(_TICK_SECONDS):
                    read = os.read(process.stdout.fileno(), _READ_BYTES)
                    rest = _lines(rest, read, on_line)
                    if not read:  # closed: nothing but the end is waited for
                        selector.unregister(process.stdout)
                now = time.monotonic()
                if now - looked > _TREE_SECONDS:
                    tree, looked = descendants(process.pid), now
                cancelled = monitor.cancelled
                if seconds is not None and now - start > seconds:
                    reason = f"out of time: {seconds:g} s"
                if now < due:
                    continue
                held = anonymous_mib(tree)
                due = now + _SAMPLING_SHARE * (time.monotonic() - now)
                if held is not None:
                    on_memory(held)
                    if memory_mb is not None and held > memory_mb:
                        reason = f"out of memory: {held:.0f} MiB of anonymous memory, the budget is {memory_mb:.0f}"
    finally:
        # whatever it left running, too; it is not waited for before that, so that its number is still its own
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        with process.stdout as stdout:
            remains = stdout.read()
    if not reason and not cancelled:
        _lines(rest, remains + b"\n", on_line)
    return Ended(process.returncode, reason, time.monotonic() - start, cancelled)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _lines(rest: bytes, read: bytes, on_line: Callable[[str], None]) -> bytes:
    *whole, rest = (rest + read).split(b"\n")
    for line in whole:
        on_line(line.decode("utf-8", "replace"))
    return rest
