"""Functions in another process: specs/20-jobs.md."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptychopinn.errors import Cancelled, UsageError
from ptychopinn.jobs import LOG, TASK, JobError, JobLimits, JobProcess, Task, run_job
from ptychopinn.jobs.memory import anonymous_mib, descendants
from ptychopinn.jobs.protocol import decode, encode
from ptychopinn.monitor import Monitor, Progress

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc"),
]
SAMPLES = "ptychopinn_job_samples"


def task(name: str, stop_s: float = 0.0, *, scratch: bool = False, **arguments: Any) -> Task:
    return Task(f"{SAMPLES}:{name}", arguments, stop_s, scratch)


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "zombie" not in status.read_text()


def wait_for(so: Any, limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not so():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_result_progress_and_log(tmp_path: Path) -> None:
    """[JOB-001] [JOB-002] Events come apart from what is printed, which goes to the log."""
    events: list[Progress] = []
    found = run_job(task("add", a=1, b=2.5), tmp_path, monitor=Monitor(events.append))
    assert found == {"path": "somewhere", "number": 3.5}
    (event,) = events
    assert (event.stage, event.done, event.total) == ("add", 1, 2)
    assert math.isnan(event.figures["loss"])
    log = (tmp_path / LOG).read_text()
    assert 'printed {"event": "log"}\n' in log
    assert "written\n" in log
    assert "INFO: adding 1\n" in log
    assert json.loads((tmp_path / TASK).read_text())["arguments"] == {"a": 1, "b": 2.5}


def test_log_records_are_events_too(tmp_path: Path) -> None:
    """[JOB-002] With logger and level."""
    with JobProcess(task("add", a=1, b=2), tmp_path) as job:
        wait_for(lambda: job.has_ended)
        job.close()
        records = [e for e in job.read(0) if e["event"] == "log"]
    assert [(e["name"], e["level"], e["message"]) for e in records] == [("ptychopinn.samples", 20, "adding 1")]


def test_lines_that_are_no_events_are_none() -> None:
    """[JOB-002]"""
    assert decode(encode("progress", done=Path("a"))) == {"event": "progress", "done": "a"}
    assert decode(b"Epoch 1\n") is None
    assert decode(b"[1]\n") is None


@pytest.mark.parametrize(
    ("how", "words", "code", "refused"),
    [
        ("refused", r"^The file is bad\. Mend it\.$", 3, True),
        ("memory", r"^Memory ran out", 4, False),
        ("other", r"^This is a defect.*ValueError: nobody expected this", 1, False),
        ("exit", r"ended before it was done \(exit code 7\): going away", 1, False),
        ("kill", r"was killed by the system or a user \(SIGKILL, exit code -9\).*memory ran out", 1, False),
    ],
)
def test_ways_to_fail(tmp_path: Path, how: str, words: str, code: int, refused: bool) -> None:
    """[JOB-003] [RUN-001] Problem, remedy and exit code as of the command line; a process that dies says how."""
    with pytest.raises(JobError, match=words) as caught:
        run_job(task("fail", how=how), tmp_path)
    assert (caught.value.exit_code, caught.value.refused) == (code, refused)
    assert ("Traceback" in caught.value.details) == (how not in ("exit", "kill"))


def test_a_function_of_somebody_else_is_not_called(tmp_path: Path) -> None:
    """[JOB-001] Packages of this software alone."""
    for name in ("os:getcwd", "ptychopinnother:f", "subprocess:run"):
        with pytest.raises(UsageError, match="Name a function of ptychopinn"):
            Task(name, {}).call()
    with pytest.raises(JobError, match="The task names os:getcwd"):
        run_job(Task("os:getcwd", {}), tmp_path)


def test_peak_memory_is_what_was_taken(tmp_path: Path) -> None:
    """[COMP-011] Of the job's own process."""
    held: list[float] = []
    run_job(task("add", a=1, b=1), tmp_path, on_memory=held.append)
    before = max(held)
    run_job(task("take", mib=100, seconds=3), tmp_path, on_memory=held.append)
    assert 95 < max(held) - before < 130


def test_memory_of_all_processes_counts(tmp_path: Path) -> None:
    """[COMP-011] What a child takes is the job's."""
    held: list[float] = []
    run_job(task("add", a=1, b=1), tmp_path, on_memory=held.append)
    before = max(held)
    run_job(task("take", mib=100, seconds=3, child=True), tmp_path, on_memory=held.append)
    assert 95 < max(held) - before < 150


def test_too_much_memory_ends_it(tmp_path: Path) -> None:
    """[COMP-011] With all that it started, and a reason."""
    began = time.monotonic()
    with pytest.raises(JobError, match=r"out of memory: .*the budget is 150") as caught:
        run_job(task("take", mib=200, seconds=60, child=True), tmp_path, limits=JobLimits(memory_mb=150))
    assert caught.value.exit_code == 4
    assert time.monotonic() - began < 20


def test_too_much_time_ends_it(tmp_path: Path) -> None:
    """[COMP-011]"""
    with pytest.raises(JobError, match=r"out of time: 0\.2 s"):
        run_job(task("sleep"), tmp_path, limits=JobLimits(seconds=0.2))


def test_a_process_that_is_stopped_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[RUN-001] It does not work, and would be waited for for ever; one that goes on again in time is not."""
    monkeypatch.setattr("ptychopinn.jobs.process._LOOK_S", 0.05)
    monkeypatch.setattr("ptychopinn.jobs.process._MAX_STOPPED_S", 0.4)
    with JobProcess(task("sleep"), tmp_path) as job:
        assert job.read(20)[0]["stage"] == "sleep"
        for number in (signal.SIGSTOP, signal.SIGCONT) * 2:
            os.kill(job.pid, number)
            until = time.monotonic() + 0.25
            while time.monotonic() < until:
                assert job.read(0.02) == []
        os.kill(job.pid, signal.SIGSTOP)
        with pytest.raises(JobError, match=rf"process {job.pid} is stopped \(SIGSTOP, or a debugger\)"):
            wait_for(lambda: job.read(0.02))


def test_a_child_that_is_left_behind_is_ended(tmp_path: Path) -> None:
    """[COMP-011] [JOB-004] The job's processes do not outlive it."""
    pid = run_job(task("leave_child"), tmp_path)
    wait_for(lambda: not is_alive(pid))


def test_cancelling_ends_it(tmp_path: Path) -> None:
    """[COMP-012] [JOB-004] With all that it started."""
    monitor = Monitor(lambda event: (pids.append(event.done), monitor.cancel()))  # type: ignore[func-returns-value]
    pids: list[int] = []
    with pytest.raises(Cancelled):
        run_job(task("sleep", with_child=True), tmp_path, monitor=monitor)
    wait_for(lambda: not is_alive(pids[0]))


@pytest.mark.parametrize("saves", ["saved.txt", ""])
def test_a_job_that_is_asked_to_stop_may_save(tmp_path: Path, saves: str) -> None:
    """[JOB-005] What it saves is its result; without one it was cancelled."""
    path = str(tmp_path / saves) if saves else ""
    with JobProcess(task("work", 9.0, saves=path), tmp_path) as job:
        job.read(20)
        job.stop()
        wait_for(lambda: job.has_ended)
        if saves:
            assert job.value() == path
        else:
            with pytest.raises(Cancelled, match="nothing to save"):
                job.value()


def test_a_job_that_does_not_stop_in_time_is_ended(tmp_path: Path) -> None:
    """[JOB-005] By itself, whatever it is busy with."""
    with JobProcess(task("sleep", 0.3), tmp_path) as job:
        job.read(20)
        job.stop()
        wait_for(lambda: job.has_ended, 5)
        with pytest.raises(JobError, match=r"did not stop within 0\.3 s"):
            job.value()


@pytest.mark.parametrize("stop_s", [0.0, 9.0])
def test_a_job_that_is_left_alone_ends_by_itself(tmp_path: Path, stop_s: float) -> None:
    """[JOB-005] [JOB-006] It saves if it may, and takes a scratch folder with it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    path = tmp_path / "saved.txt"
    job = JobProcess(task("work", stop_s, scratch=True, saves=str(path)), folder)
    job.read(20)
    job.leave()
    wait_for(lambda: job.has_ended)
    assert path.is_file() == (stop_s > 0)
    assert folder.exists() == (stop_s == 0)


def test_a_job_ends_with_its_parent(tmp_path: Path) -> None:
    """[JOB-006] However that ends."""
    code = f"from tests_of_jobs import run; run({str(tmp_path)!r})"
    (tmp_path / "tests_of_jobs.py").write_text(
        "from pathlib import Path\nfrom ptychopinn.jobs import Task, run_job\n"
        f"def run(folder): run_job(Task({SAMPLES + ':sleep'!r}, {{}}), Path(folder))\n"
    )
    search = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": search})
    try:
        wait_for(lambda: len(descendants(parent.pid)) > 1)
        (_, pid) = descendants(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not is_alive(pid))


def test_processes_that_are_gone_hold_nothing() -> None:
    """[COMP-011]"""
    assert anonymous_mib([2**22 + 1]) is None
    assert descendants(2**22 + 1) == [2**22 + 1]


def test_numbers_and_arrays_of_numpy_are_sent() -> None:
    """[JOB-001] As Python's own."""
    found = decode(encode("done", value={"one": np.float32(0.5), "row": np.arange(3)}))
    assert found == {"event": "done", "value": {"one": 0.5, "row": [0, 1, 2]}}
