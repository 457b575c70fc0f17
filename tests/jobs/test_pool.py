"""Many jobs side by side: specs/20-jobs.md."""

from __future__ import annotations

import os
import pickle
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptychopinn.cores import share_of_cores
from ptychopinn.errors import Cancelled, ResourceError
from ptychopinn.jobs import LOG, Job, JobDied, JobError, JobLimits, JobOverLimit, LocalWorkers, Task, run_jobs
from ptychopinn.monitor import NULL_MONITOR, Monitor, Progress
from ptychopinn.system import visible_gpus

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")

OUT = {"name": "large", "deaths": 1, "out_of_memory": True}


def job(folder: Path, name: str, function: str = "note", **arguments: Any) -> Job:
    return Job(name, Task(f"ptychopinn_job_samples:{function}", arguments), folder / "jobs" / name)


def run(jobs: list[Job], workers: int = 2, *, retries: int = 2, monitor: Monitor = NULL_MONITOR) -> dict[str, Any]:
    with LocalWorkers(workers) as local:
        return {one.name: found for one, found in run_jobs(jobs, local, retries=retries, monitor=monitor)}


def test_what_is_killed_is_tried_again_and_what_is_refused_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[JOB-007] As often as is allowed; one that fails loses no other."""
    killed, hopeless = (str(tmp_path / name) for name in ("killed", "hopeless"))
    found = run(
        [
            job(tmp_path, "killed", path=killed, deaths=2),
            job(tmp_path, "hopeless", path=hopeless, deaths=9),
            job(tmp_path, "refused", "fail", how="refused"),
            job(tmp_path, "defect", "fail", how="other"),
        ]
    )
    assert found["killed"] == 3
    assert isinstance(found["hopeless"], JobDied)
    assert Path(hopeless).read_text() == "begin job\n" * 3
    assert found["refused"].refused
    assert "defect" in found["defect"].problem
    again = [line for line in caplog.messages if "tried again" in line]
    assert len(again) == 4
    assert not any(line.startswith(("refused", "defect")) for line in again)


def test_a_job_over_a_limit_of_its_own_is_not_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[JOB-007] What jobs report and take until then is known."""
    events: list[Progress] = []
    taken: list[float] = []
    large = replace(
        job(tmp_path, "large", "take", mib=200, seconds=60), limits=JobLimits(memory_mb=150), on_memory=taken.append
    )
    added = replace(job(tmp_path, "added", "add", a=1, b=1), on_progress=events.append)
    found = run([large, added])
    assert isinstance(found["large"], JobOverLimit)
    assert found["large"].exit_code == ResourceError.exit_code
    assert not any("tried again" in line for line in caplog.messages)
    assert max(taken) > 150
    assert [event.stage for event in events] == ["add"]


def test_what_ran_out_of_memory_runs_alone_after_the_others(tmp_path: Path) -> None:
    """[JOB-007]"""
    path = str(tmp_path / "order")
    large = Job("large", Task("ptychopinn_job_samples:note", {**OUT, "path": path}), tmp_path / "jobs" / "large")
    others = [job(tmp_path, f"small{n}", path=path, seconds=0.3) for n in range(2)]
    found = run([large, *others])
    assert found["large"] == 2
    assert Path(path).read_text().splitlines()[-2:] == ["begin large", "end large"], "it was not alone"
    assert list(found)[-1] == "large"


@pytest.mark.parametrize(("workers", "tries"), [(1, 1), (2, 2)])
def test_what_ran_out_of_memory_alone_is_not_tried_again(tmp_path: Path, workers: int, tries: int) -> None:
    """[JOB-007]"""
    path = tmp_path / "order"
    found = run([job(tmp_path, "large", path=str(path), deaths=9, out_of_memory=True)], workers, retries=3)
    assert found["large"].exit_code == ResourceError.exit_code
    assert path.read_text().count("begin") == tries


def test_a_folder_that_cannot_be_made_is_an_error_of_its_job(tmp_path: Path) -> None:
    """[JOB-007]"""
    (tmp_path / "jobs").write_text("a file")
    found = run([job(tmp_path, "lost", "add", a=1, b=2)], retries=0)
    assert "Not a directory" in str(found["lost"])


def test_cancelled_jobs_end_and_those_that_ended_were_given(tmp_path: Path) -> None:
    """[JOB-008]"""
    monitor, ended = Monitor(), []
    jobs = [
        job(tmp_path, "quick", path=str(tmp_path / "a")),
        job(tmp_path, "slow", path=str(tmp_path / "b"), seconds=60),
    ]
    began = time.monotonic()
    with LocalWorkers(2) as local, pytest.raises(Cancelled):
        for one, found in run_jobs(jobs, local, retries=2, monitor=monitor):
            ended.append((one.name, found))
            monitor.cancel()
    assert ended == [("quick", 1)]
    assert time.monotonic() - began < 20


def test_a_process_that_stays_does_one_job_after_another(tmp_path: Path) -> None:
    """[JOB-011] Each with a log of its own. After a failure, and where it was killed, there is a new one."""
    folder = tmp_path / "line\nbreak"
    with LocalWorkers(1, stay=True) as local:

        def value(name: str, function: str = "say_where", **arguments: Any) -> Any:
            ((_, found),) = run_jobs([job(folder, name, function, **arguments)], local, retries=0, monitor=Monitor())
            return found

        first = value("first")
        assert value("second") == first
        for name in ("first", "second"):
            assert (folder / "jobs" / name / LOG).read_text() == "I am here\n"
        assert "The file is bad." in value("refused", "fail", how="refused").problem
        second = value("third")
        assert second != first
        os.kill(second, signal.SIGKILL)
        while not Path(f"/proc/{second}/stat").read_text().rpartition(")")[2].startswith(" Z"):
            time.sleep(0.01)
        third = value("fourth")
        assert third != second
        assert "SIGKILL" in value("killed", "fail", how="kill").problem
        last = value("fifth")
    assert not any(Path(f"/proc/{pid}").exists() for pid in (first, second, third, last))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system assigns no cores")
def test_each_worker_has_cores_and_a_gpu_of_its_own(tmp_path: Path) -> None:
    """[JOB-009]"""
    count = min(len(os.sched_getaffinity(0)), 2)
    with LocalWorkers(count, gpus=("GPU-a", "3")[:count]) as local:
        jobs = [job(tmp_path, str(n), "place") for n in range(count)]
        found = [value for _, value in run_jobs(jobs, local, retries=0, monitor=NULL_MONITOR)]
    assert sorted(gpus for _, gpus in found) == sorted(("GPU-a", "3")[:count])
    cores = [core for own, _ in found for core in own]
    assert sorted(cores) == sorted(os.sched_getaffinity(0))
    assert share_of_cores(0, 1) == share_of_cores(0, 10**6) == ()


def test_gpus_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[JOB-009]"""
    for name in ("nvidia0", "nvidia5", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(tmp_path) == ("0", "1")
    for value, gpus in (("", ()), ("-1", ()), ("2, GPU-ab", ("2", "GPU-ab"))):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert visible_gpus(tmp_path) == gpus


def test_an_error_keeps_what_it_says_in_another_process() -> None:
    """[JOB-003]"""
    before = JobDied("It died.", "Again.", exit_code=4, details="log", refused=False)
    after = pickle.loads(pickle.dumps(before))
    assert isinstance(after, JobDied)
    assert vars(after) == vars(before)
    assert str(after) == "It died. Again."
    assert issubclass(JobDied, JobError)
