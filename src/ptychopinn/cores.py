"""Cores: how many are granted to this process, how many are free, and whether it gets them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_MIN_SAMPLE_S = 0.1  # the kernel counts in hundredths of a second
_GRANTS = ("SLURM_CPUS_PER_TASK", "PBS_NCPUS", "NSLOTS", "LSB_DJOB_NUMPROC")  # of SLURM, PBS, Grid Engine, LSF
# Idle threads of OpenMP wait for work in a loop, by default for so long that two programs on the same cores hold each
# other up: each takes the cores from the threads that the other one waits for. A short wait costs nothing alone.
_SHORT_WAITS = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "0"}  # GNU's; Intel's and LLVM's
_WAIT_POLICY = "OMP_WAIT_POLICY"
_WATCH_S = 10.0
_MIN_SHARE = 0.6


@contextmanager
def short_waits() -> Iterator[None]:
    """Let a library of OpenMP that is loaded in this block put its idle threads to sleep soon.

    Settings of the user take precedence.
    """
    names = [] if _WAIT_POLICY in os.environ else [name for name in _SHORT_WAITS if name not in os.environ]
    os.environ.update({name: _SHORT_WAITS[name] for name in names})
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)


def granted_cores(root: Path = _ROOT) -> int:
    """Number of cores that this process may use, by affinity, scheduler, and quota of its container; at least 1.

    Parameters
    ----------
    root:
        Where ``proc`` and ``sys`` are.
    """
    grants = [float(len(_affinity()))]
    grants += [float(os.environ[name]) for name in _GRANTS if os.environ.get(name, "").isdecimal()]
    grants += [quota.cores for quota in _quotas(root)]
    return max(int(min(grants)), 1)


def share_of_cores(number: int, count: int) -> tuple[int, ...]:
    """The numbers of the cores of one of ``count`` processes; empty if there are too few, or only one process."""
    cores = sorted(_affinity())
    return tuple(cores[number::count]) if 1 < count <= len(cores) else ()


class CoreLoad:
    """Measures how many cores other processes leave free, from now on.

    Parameters
    ----------
    root:
        Where ``proc`` and ``sys`` are.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root
        self._cores = _affinity()
        self._start = self._usage()

    def free_cores(self) -> float | None:
        """Mean number of cores since the start that no other process used; None if the system does not report it.

        The own use counts as free. A sample is at least 0.1 s long.
        """
        time.sleep(max(self._start.at + _MIN_SAMPLE_S - time.monotonic(), 0.0))
        end, start = self._usage(), self._start
        elapsed, own = end.at - start.at, end.own - start.own

        def others(before: float, after: float) -> float:
            return max(after - before - own, 0.0) / elapsed

        free = [] if start.all is None or end.all is None else [len(self._cores) - others(start.all, end.all)]
        for path, used in end.quotas.items():
            if path in start.quotas:
                free.append(used.cores - others(start.quotas[path].used_s, used.used_s))
        return max(min(free), 0.0) if free else None

    def choose_threads(self, largest: int) -> int:
        """Number of threads for a computation: as many as there are free cores, at least half of those granted.

        The lower limit is the share beside one other program, whose load may soon end.
        """
        granted = min(largest, granted_cores(self._root))
        if granted == 1:
            return 1
        free = self.free_cores()
        return granted if free is None else max(min(granted, int(free + 0.5)), granted // 2, 1)

    def _usage(self) -> _Usage:
        quotas = {quota.path: quota for quota in _quotas(self._root)}
        return _Usage(time.monotonic(), _busy_s(self._root, self._cores), time.process_time(), quotas)


class StarvationWatch:
    """Notices once that a computation gets little of the cores' time.

    Parameters
    ----------
    root:
        Where ``proc`` is.
    watch_s:
        Seconds of one observation.
    """

    def __init__(self, root: Path = _ROOT, watch_s: float = _WATCH_S) -> None:
        self._root, self._watch_s, self._seen = root, watch_s, False
        self._restart()

    def notice(self) -> str | None:
        """A sentence, if the computation starves since the last observation; None at all other times."""
        elapsed = time.monotonic() - self._at
        if self._seen or elapsed < self._watch_s:
            return None
        # A thread that computes has a core all the time: it does not wait in the queue of the kernel, and others of the
        # process only add to the time.
        computed, waited = time.process_time() - self._computed, _queued_s(self._root) - self._queued
        share = min(computed / elapsed, computed / max(computed + waited, 1e-9))
        self._restart()
        if share >= _MIN_SHARE:
            return None
        self._seen = True
        return (
            f"The training gets {share:.0%} of the processor time that it could use: other programs or a quota take "
            "the rest, or its data come slowly. Give it cores of its own, or fewer --threads."
        )

    def _restart(self) -> None:
        self._at, self._computed, self._queued = time.monotonic(), time.process_time(), _queued_s(self._root)


@dataclass(frozen=True)
class _Quota:
    """A limit of a control group: cores, and core seconds used so far."""

    path: Path
    cores: float
    used_s: float


@dataclass(frozen=True)
class _Usage:
    """Use of cores at a time: core seconds of all processes (None: unknown) and of this one."""

    at: float
    all: float | None
    own: float
    quotas: dict[Path, _Quota]


def _affinity() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _busy_s(root: Path, cores: frozenset[int]) -> float | None:
    """Seconds that cores were busy since the system started."""
    names = {f"cpu{core}" for core in cores}
    try:
        rows = [line.split() for line in (root / "proc/stat").read_text("ascii").splitlines()]
        busy = [sum(map(int, (*row[1:4], *row[6:9]))) for row in rows if row and row[0] in names]
        return sum(busy) / os.sysconf("SC_CLK_TCK") if busy else None
    except (OSError, ValueError, AttributeError):
        return None


def _queued_s(root: Path) -> float:
    """Seconds that threads of this process waited for a core."""
    waited = 0
    for path in (root / "proc/self/task").glob("*/schedstat"):
        try:
            waited += int(path.read_text("ascii").split()[1])
        except (OSError, ValueError, IndexError):  # the thread has just ended
            continue
    return waited / 1e9


def _quotas(root: Path) -> list[_Quota]:
    """The quotas of the control groups of this process, of version 2 and of version 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return []
    found: list[_Quota] = []
    for line in lines:
        _, controllers, own = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers
        # A container sees its own group as the top.
        for folder in (top / own.lstrip("/"), *(top / own.lstrip("/")).parents):
            if not folder.is_relative_to(top):
                break
            quota = _quota_of(folder)
            found += [] if quota is None else [quota]
    return found


def _quota_of(folder: Path) -> _Quota | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text("ascii").split()
            used = dict(line.split() for line in (folder / "cpu.stat").read_text("ascii").splitlines())
            return None if quota == "max" else _Quota(folder, int(quota) / int(period), int(used["usage_usec"]) / 1e6)
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text("ascii") for name in ("quota", "period"))
        usage = folder / "cpuacct.usage"
        if int(quota) <= 0 or int(period) <= 0:
            return None
        used_s = int(usage.read_text("ascii")) / 1e9 if usage.is_file() else 0.0
        return _Quota(folder, int(quota) / int(period), used_s)
    except (OSError, ValueError, KeyError):
        return None
