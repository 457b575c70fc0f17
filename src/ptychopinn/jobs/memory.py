"""Anonymous memory of processes, as the kernel counts it, and which processes there are.

For one process it is ``RssAnon``, for several the sum of ``Pss_Anon``, so that pages shared after a fork count once.
Mapped files do not count, because the kernel can reclaim them. (USS and PSS of psutil count them.)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def anonymous_mib(pids: Sequence[int]) -> float | None:
    """Anonymous memory of processes in MiB; None if the system does not report it."""
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
    """A process and all its descendants."""
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


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, by a signal or a debugger; false if the system does not report it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in ("T", "t")


def available_mib() -> int | None:
    """Free memory in MiB; None if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:")), None)
