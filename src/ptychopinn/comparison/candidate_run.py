"""Run the candidates of a comparison or study as jobs, unless their results are there already."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychopinn.atomic import write_json
from ptychopinn.comparison.candidates import CandidatePlan
from ptychopinn.comparison.files import RESULT, read_json, read_scores, remove_scores
from ptychopinn.comparison.scans import ScanSource
from ptychopinn.comparison.table import PASSES, CandidateOutcome
from ptychopinn.digests import digest_of
from ptychopinn.errors import Cancelled
from ptychopinn.jobs import Job, JobError, JobLimits, Task, Workers, available_mib, run_jobs
from ptychopinn.monitor import Monitor, Progress

FORMAT = 3  # of a candidate's results; a new number invalidates all old ones
_FREE_SHARE = 0.75


@dataclass(frozen=True)
class CandidateJobs:
    """Where and how candidates run."""

    workers: Workers
    memory_mb: float | None  # limit of one candidate; None sets none
    seconds: float | None  # the same
    retries: int
    side_by_side: bool = False  # whether several may run at a time, which makes their durations no measure


class CandidateRun:
    """A candidate on some scans.

    Parameters
    ----------
    folder:
        Folder of its results.
    scans:
        Name to scan, in order; networks train on the one called "train".
    split:
        Scans whose odd and even patterns are also reconstructed separately.
    """

    def __init__(
        self, folder: Path, plan: CandidatePlan, scans: Mapping[str, ScanSource], split: Sequence[str] = ()
    ) -> None:
        self.folder, self.plan = folder, plan
        self._scans, self._split = scans, split
        self._scan = next(iter(scans))  # that is worked on
        self._result: dict[str, Any] = {}

    def job(self, name: str, how: CandidateJobs, monitor: Monitor) -> Job | None:
        """The job that makes its results; None if they are there.

        Results with other inputs are removed. If only the reference of a scan changed, only its scores are removed. A
        training that was interrupted resumes from its last checkpoint.
        """
        key = digest_of(
            {
                "format": FORMAT,
                "plan": self.plan.as_dict(),
                "scans": {name: [s.digest, s.reading.model_dump(mode="json")] for name, s in self._scans.items()},
            }
        )
        scored = {name: [source.reference_digest, name in self._split] for name, source in self._scans.items()}
        before = self._read()
        if before.get("key") != key:
            if self.folder.exists():
                shutil.rmtree(self.folder)
            before = {}
        stale = [name for name in self._scans if before.get("scored", {}).get(name) != scored[name]]
        if not stale and before.get("status") == "ok":
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        for name_of_scan in stale:
            remove_scores(self.folder, name_of_scan)
        self._result = {"key": key, "scored": scored, "peak_mib": before.get("peak_mib", {})}
        self._result["side_by_side"] = how.side_by_side
        self._write("failed", "interrupted")

        def pass_on(event: Progress) -> None:
            self._scan = event.stage.partition(": ")[0]
            monitor.report(f"{self.plan.name}: {event.stage}", event.done, event.total)

        return Job(
            name,
            Task("ptychopinn.comparison.worker:run_candidate", self._arguments(how.memory_mb)),
            self.folder,
            JobLimits(how.memory_mb, how.seconds),
            on_progress=pass_on,
            on_memory=self._note_memory,
        )

    def record(self, found: Any | JobError) -> None:
        """Record how its job ended."""
        if isinstance(found, JobError):
            self._write("failed", " ".join(str(found).split()))
        else:
            self._write("ok", "")

    def outcome(self) -> CandidateOutcome:
        """Its results, read from its folder."""
        result = {"status": "failed", "message": "not run", **self._read()}
        found = {}
        for scan in self._scans:
            if (scores := read_scores(self.folder, scan)) is not None:
                figures, skipped = scores
                peak = result.get("peak_mib", {}).get(scan)
                more = {PASSES: self.plan.passes, ("run", "peak_anonymous_mib"): peak}
                known = {figure: float(value) for figure, value in more.items() if value is not None}
                found[scan] = ({**figures, **known}, skipped)
        failure = "" if result["status"] == "ok" else result["message"] or "no reason was given"
        return CandidateOutcome(self.plan.name, failure, found, side_by_side=result.get("side_by_side", False))

    def _arguments(self, memory_mb: float | None) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "plan": self.plan.as_dict(),
            "scans": {
                name: {
                    "path": source.path,
                    "reference": source.reference,
                    "reading": source.reading.model_dump(mode="json"),
                }
                for name, source in self._scans.items()
            },
            "split": list(self._split),
            "memory_mb": None if memory_mb is None else int(memory_mb),
        }

    def _note_memory(self, mib: float) -> None:
        peaks = self._result["peak_mib"]
        peaks[self._scan] = max(peaks.get(self._scan, 0.0), mib)

    def _read(self) -> dict[str, Any]:
        return dict(read_json(self.folder / RESULT)) if (self.folder / RESULT).is_file() else {}

    def _write(self, status: str, message: str) -> None:
        write_json(self.folder / RESULT, {**self._result, "status": status, "message": message})


def run_candidates(
    runs: Mapping[str, CandidateRun],
    how: CandidateJobs,
    monitor: Monitor,
    on_ended: Callable[[Collection[str]], None],
) -> None:
    """Run candidates by name, unless their results are there.

    ``on_ended`` is called with the names of those that have ended, first before any runs, then after each.

    Raises
    ------
    Cancelled
        If the monitor was cancelled; finished results stay.
    """
    jobs = {name: run.job(name, how, monitor) for name, run in runs.items()}
    ended = {name for name, job in jobs.items() if job is None}
    on_ended(ended)
    try:
        with how.workers:
            waiting = [job for job in jobs.values() if job is not None]
            for job, found in run_jobs(waiting, how.workers, retries=how.retries, monitor=monitor):
                runs[job.name].record(found)
                ended.add(job.name)
                on_ended(ended)
    except Cancelled as error:
        problem = f"The work was cancelled; {len(ended)} of {len(runs)} runs of candidates have ended."
        raise Cancelled(problem, "Continue with --resume.") from error


def default_memory_mb(count: int = 1) -> float | None:
    """The share of each of so many candidates in three quarters of the free memory, in MiB; None if it is unknown."""
    free = available_mib()
    return None if free is None else free * _FREE_SHARE / count
