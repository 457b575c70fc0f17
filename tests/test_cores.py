"""Cores that are granted and free: files of the kernel, as Linux has them, in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ptychopinn import cores
from ptychopinn.cores import CoreLoad, StarvationWatch, granted_cores, short_waits

Fake = Callable[[str, str], None]
SCHEDULERS = ("SLURM_CPUS_PER_TASK", "PBS_NCPUS", "NSLOTS", "LSB_DJOB_NUMPROC")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Writes a file below the root; eight cores are in the affinity of this process, and no scheduler granted any."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for name in SCHEDULERS:
        monkeypatch.delenv(name, raising=False)

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    write("proc/self/cgroup", "")
    return write


def stat(busy: float, count: int = 16) -> str:
    """/proc/stat where every core was busy for so many seconds."""
    if not hasattr(os, "sysconf"):
        pytest.skip("this system does not say how it counts time")
    ticks = round(busy * os.sysconf("SC_CLK_TCK"))
    rows = [f"cpu{core} {ticks} 0 0 99999 5 0 0 0 0 0" for core in range(count)]
    return "\n".join(["cpu 1 2 3 4 5 6 7 8 9 10", *rows, "intr 1"])


def test_the_affinity_is_the_limit(fake: Fake, tmp_path: Path) -> None:
    """[RUN-010]"""
    assert granted_cores(tmp_path) == 8


@pytest.mark.parametrize(("quota", "expected"), [("300000 100000", 3), ("50000 100000", 1), ("max 100000", 8)])
def test_a_quota_of_a_container_is_a_limit(fake: Fake, tmp_path: Path, quota: str, expected: int) -> None:
    """[RUN-010] Control groups of version 2; the limit of a group above counts too."""
    fake("proc/self/cgroup", "0::/jobs/one\n")
    fake("sys/fs/cgroup/jobs/cpu.max", quota)
    fake("sys/fs/cgroup/jobs/cpu.stat", "usage_usec 5\nuser_usec 4")
    fake("sys/fs/cgroup/jobs/one/cpu.max", "max 100000")
    fake("sys/fs/cgroup/jobs/one/cpu.stat", "usage_usec 5")
    assert granted_cores(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("200000", 2), ("-1", 8)])
def test_a_quota_of_version_1_is_a_limit(fake: Fake, tmp_path: Path, quota: str, expected: int) -> None:
    """[RUN-010] As in Docker, where the group that the process names is not visible, only the top."""
    fake("proc/self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/docker/0123\n")
    fake("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", quota)
    fake("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert granted_cores(tmp_path) == expected


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_grant_of_a_scheduler_is_a_limit(
    fake: Fake, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[RUN-010]"""
    monkeypatch.setenv(name, "4")
    assert granted_cores(tmp_path) == 4
    monkeypatch.setenv(name, "4(x2)")  # not a number
    assert granted_cores(tmp_path) == 8


@pytest.mark.parametrize(("busy", "threads"), [(0.0, 8), (0.25, 6), (0.75, 4), (1.0, 4)])
def test_threads_are_chosen_by_the_load(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: float, threads: int
) -> None:
    """[RUN-010] A core for each thread; beside a program that takes them all, half of the cores."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: 5.0)
    fake("proc/stat", stat(1000.0))
    load = CoreLoad(tmp_path)
    now[0] += 10
    fake("proc/stat", stat(1000.0 + 10 * busy))
    assert load.free_cores() == pytest.approx(8 * (1 - busy))
    assert load.choose_threads(8) == threads
    assert load.choose_threads(1) == 1


def test_own_work_is_no_load(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[RUN-010]"""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: 8 * now[0])
    fake("proc/stat", stat(1000.0))
    load = CoreLoad(tmp_path)
    now[0] += 10
    fake("proc/stat", stat(1010.0))
    assert load.choose_threads(8) == 8


def test_others_in_the_container_are_load(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[RUN-010] The host may have free cores that the quota does not grant."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    fake("proc/self/cgroup", "0::/\n")
    fake("proc/stat", stat(0))
    fake("sys/fs/cgroup/cpu.max", "400000 100000")
    fake("sys/fs/cgroup/cpu.stat", "usage_usec 0")
    load = CoreLoad(tmp_path)
    now[0] += 1
    fake("sys/fs/cgroup/cpu.stat", "usage_usec 1000000")
    assert load.free_cores() == pytest.approx(3)


def test_without_figures_of_the_system_all_granted_cores_are_used(fake: Fake, tmp_path: Path) -> None:
    """[RUN-010]"""
    load = CoreLoad(tmp_path)
    assert load.free_cores() is None
    assert load.choose_threads(8) == 8
    assert load.choose_threads(3) == 3


def test_waits_of_openmp_are_short_while_a_framework_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """[RUN-011] Settings of the user take precedence."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    with short_waits():
        assert int(os.environ["GOMP_SPINCOUNT"]) < 10_000
        assert os.environ["KMP_BLOCKTIME"] == "0"
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.setenv("KMP_BLOCKTIME", "7")
    with short_waits():
        assert os.environ["KMP_BLOCKTIME"] == "7"
    assert os.environ["KMP_BLOCKTIME"] == "7"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    with short_waits():
        assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize(("computed", "queued", "noticed"), [(9.0, 1.0, False), (4.0, 0.0, True), (10.0, 15.0, True)])
def test_a_training_that_starves_is_noticed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed: float, queued: float, noticed: bool
) -> None:
    """[RUN-012] It has too little of a core, or its threads wait in the queue of the kernel."""
    now, cpu = [0.0], [0.0]
    monkeypatch.setattr(cores.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(cores.time, "process_time", lambda: cpu[0])
    task = tmp_path / "proc/self/task/1/schedstat"
    task.parent.mkdir(parents=True)
    task.write_text("5 0 1")
    watch = StarvationWatch(tmp_path, watch_s=10)
    now[0], cpu[0] = 5.0, 0.0
    assert watch.notice() is None  # too early to say
    now[0], cpu[0] = 10.0, computed
    task.write_text(f"5 {round(queued * 1e9)} 1")
    found = watch.notice()
    assert (found is not None) == noticed
    now[0] += 100
    if noticed:
        assert watch.notice() is None
