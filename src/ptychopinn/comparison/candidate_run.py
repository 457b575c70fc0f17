"""Run one candidate of a comparison in its own process, unless its results are there already."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
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
from ptychopinn.jobs import JobError, Task, available_mib, run_job
from ptychopinn.monitor import NULL_MONITOR, Monitor, Progress

FORMAT = 3  # of a candidate's results; a new number invalidates all old ones
_FREE_SHARE = 0.75


@dataclass(frozen=True)
class Limits:
    """Limits of a candidate."""

    memory_mb: float | None = None
    seconds: float | None = None


def run_candidate(
    folder: Path,
    plan: CandidatePlan,
    scans: Mapping[str, ScanSource],
    split: Sequence[str],
    *,
    limits: Limits,
    monitor: Monitor = NULL_MONITOR,
) -> CandidateOutcome:
    """Run one candidate in its own process, unless ``folder`` has its results.

    Parameters
    ----------
    folder:
        Folder of the candidate; created if necessary. Results with other inputs are removed. If only the reference of a
        scan changed, only its scores are removed.
    scans:
        Name to scan, in order; networks train on the one called "train".
    split:
        Scans whose odd and even patterns are also reconstructed separately.

    Raises
    ------
    Cancelled
        If the monitor was cancelled. When the candidate is run again, its training resumes from the last checkpoint.
    """
    key = digest_of(
        {
            "format": FORMAT,
            "plan": plan.as_dict(),
            "scans": {name: [s.digest, s.reading.model_dump(mode="json")] for name, s in scans.items()},
        }
    )
    scored = {name: [source.reference_digest, name in split] for name, source in scans.items()}
    before = read_json(folder / RESULT) if (folder / RESULT).is_file() else {}
    if before.get("key") != key:
        if folder.exists():
            shutil.rmtree(folder)
        before = {}
    stale = [name for name in scans if before.get("scored", {}).get(name) != scored[name]]
    if not stale and before.get("status") == "ok":
        return read_outcome(folder, plan, list(scans))
    folder.mkdir(parents=True, exist_ok=True)
    for name in stale:
        remove_scores(folder, name)
    arguments = {
        "folder": folder,
        "plan": plan.as_dict(),
        "scans": {
            name: {
                "path": source.path,
                "reference": source.reference,
                "reading": source.reading.model_dump(mode="json"),
            }
            for name, source in scans.items()
        },
        "split": list(split),
        "memory_mb": None if limits.memory_mb is None else int(limits.memory_mb),
    }
    result: dict[str, Any] = {"key": key, "scored": scored, "status": "failed", "message": "interrupted"}
    result["peak_mib"] = before.get("peak_mib", {})
    write_json(folder / RESULT, result)
    watch = _CandidateMonitor(plan.name, next(iter(scans)), result["peak_mib"], monitor)
    start = time.monotonic()
    try:
        run_job(
            Task("ptychopinn.comparison.worker:run_candidate", arguments),
            folder,
            memory_mb=limits.memory_mb,
            seconds=limits.seconds,
            on_memory=watch.note_memory,
            monitor=watch,
        )
        result |= {"status": "ok", "message": ""}
    except Cancelled as error:
        problem = f"The comparison was cancelled during the candidate {plan.name}."
        raise Cancelled(problem, "Continue with --resume.") from error
    except JobError as error:
        result["message"] = " ".join(str(error).split())
    result["seconds"] = time.monotonic() - start
    write_json(folder / RESULT, result)
    return read_outcome(folder, plan, list(scans))


class _CandidateMonitor(Monitor):
    """Forwards progress under the candidate's name, and records the peak memory of each scan."""

    def __init__(self, candidate: str, scan: str, peaks: dict[str, float], monitor: Monitor) -> None:
        super().__init__(self._pass_on)
        self._candidate, self._scan, self._peaks, self._monitor = candidate, scan, peaks, monitor

    @property
    def cancelled(self) -> bool:
        """Whether the comparison was cancelled."""
        return self._monitor.cancelled

    def _pass_on(self, event: Progress) -> None:
        self._scan = event.stage.partition(": ")[0]
        self._monitor.report(f"{self._candidate}: {event.stage}", event.done, event.total)

    def note_memory(self, mib: float) -> None:
        """Record the memory in use."""
        self._peaks[self._scan] = max(self._peaks.get(self._scan, 0.0), mib)


def read_outcome(folder: Path, plan: CandidatePlan, scans: Sequence[str]) -> CandidateOutcome:
    """Read the outcome of a candidate from its folder."""
    result: dict[str, Any] = {"status": "failed", "message": "not run"}
    if (folder / RESULT).is_file():
        result = read_json(folder / RESULT)
    found = {}
    for scan in scans:
        if (scores := read_scores(folder, scan)) is not None:
            figures, skipped = scores
            more = {PASSES: plan.passes, ("run", "peak_anonymous_mib"): result.get("peak_mib", {}).get(scan)}
            known = {figure: float(value) for figure, value in more.items() if value is not None}
            found[scan] = ({**figures, **known}, skipped)
    failure = "" if result["status"] == "ok" else result["message"] or "no reason was given"
    return CandidateOutcome(plan.name, failure, found)


def default_memory_mb() -> float | None:
    """Three quarters of the free memory, in MiB; None if it is unknown."""
    free = available_mib()
    return None if free is None else free * _FREE_SHARE
