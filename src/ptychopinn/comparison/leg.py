"""One leg of a comparison: its process, its budget, its results by content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychopinn.comparison.files import (
    LOG,
    RESULT,
    TASK,
    digest_of,
    read_json,
    read_scores,
    remove_scores,
    write_json,
)
from ptychopinn.comparison.legs import LegPlan
from ptychopinn.comparison.process import available_mib, python_command, run_limited
from ptychopinn.comparison.scans import ScanSource
from ptychopinn.comparison.table import LegOutcome
from ptychopinn.errors import Cancelled
from ptychopinn.monitor import NULL_MONITOR, Monitor

FORMAT = 3  # of a leg's results: another number makes every leg anew
_FREE_SHARE = 0.75
_WORKER = "ptychopinn.comparison.worker"


@dataclass(frozen=True)
class Limits:
    """What a leg may take."""

    memory_mb: float | None = None
    seconds: float | None = None


def run_leg(
    folder: Path,
    plan: LegPlan,
    scans: Mapping[str, ScanSource],
    split: Sequence[str],
    *,
    limits: Limits,
    monitor: Monitor = NULL_MONITOR,
) -> LegOutcome:
    """Run one leg in processes of its own, unless what lies in its folder is what would come of it.

    Parameters
    ----------
    folder:
        The leg's own; made if it is not there. Results of another content are removed; where only the reference of a
        scan is another, its scores are.
    plan:
        The leg.
    scans:
        Scan to its file, in order; networks train on the one called "train".
    split:
        Scans of which the odd and the even patterns are reconstructed alone, too.
    limits:
        What it may take.
    monitor:
        Progress and cancellation.

    Raises
    ------
    Cancelled
        If the monitor was cancelled; a training goes on from its last checkpoint when the leg is run again.
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
        return outcome_of(folder, plan.name, list(scans))
    folder.mkdir(parents=True, exist_ok=True)
    for name in stale:
        remove_scores(folder, name)
    task = {
        "plan": plan.as_dict(),
        "scans": {
            name: {
                "path": str(source.path),
                "reference": None if source.reference is None else str(source.reference),
                "reading": source.reading.model_dump(mode="json"),
            }
            for name, source in scans.items()
        },
        "split": list(split),
        "memory_mb": None if limits.memory_mb is None else int(limits.memory_mb),
    }
    write_json(folder / TASK, task)
    result: dict[str, Any] = {"key": key, "scored": scored, "status": "failed", "message": "interrupted"}
    result["peak_mib"] = before.get("peak_mib", {})
    write_json(folder / RESULT, result)
    watch = _Watch(plan.name, next(iter(scans)), result["peak_mib"], monitor)
    ended = run_limited(
        python_command(_WORKER, folder),
        log=folder / LOG,
        memory_mb=limits.memory_mb,
        seconds=limits.seconds,
        on_line=watch.line,
        on_memory=watch.memory,
        monitor=monitor,
    )
    if ended.cancelled:
        raise Cancelled(f"The comparison was cancelled during the leg {plan.name}.", "Go on with it by --resume.")
    result["message"] = ended.reason or watch.ended_because(ended.returncode, folder / LOG)
    result["status"] = "failed" if result["message"] else "ok"
    result["seconds"] = ended.seconds
    write_json(folder / RESULT, result)
    return outcome_of(folder, plan.name, list(scans))


class _Watch:
    """What a leg's process tells, and how much memory it held in which scan."""

    def __init__(self, leg: str, scan: str, peaks: dict[str, float], monitor: Monitor) -> None:
        self._leg, self._scan, self._peaks, self._monitor = leg, scan, peaks, monitor
        self._ended: str | None = None

    def line(self, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:  # somebody printed before the worker took the pipe for itself
            return
        if "scan" in event:
            self._scan = event["scan"]
        elif "ended" in event:
            self._ended = event["ended"]
        else:
            self._monitor.report(f"{self._leg}: {self._scan}: {event['stage']}", event["done"], event["total"])

    def memory(self, mib: float) -> None:
        self._peaks[self._scan] = max(self._peaks.get(self._scan, 0.0), mib)

    def ended_because(self, returncode: int, log: Path) -> str:
        """Why it failed; nothing if it did not."""
        if self._ended is not None:
            return self._ended
        if returncode == -9:
            return "killed by the system, which may have run out of memory"
        lines = log.read_text("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing was printed")
        return f"ended with the exit code {returncode}: {last}"


def outcome_of(folder: Path, name: str, scans: Sequence[str]) -> LegOutcome:
    """What came of a leg, from its folder."""
    result: dict[str, Any] = {"status": "failed", "message": "not run"}
    if (folder / RESULT).is_file():
        result = read_json(folder / RESULT)
    found = {}
    for scan in scans:
        if (scores := read_scores(folder, scan)) is not None:
            figures, skipped = scores
            peak = result.get("peak_mib", {}).get(scan)
            found[scan] = ({**figures, **({} if peak is None else {("run", "peak_anonymous_mib"): peak})}, skipped)
    failure = "" if result["status"] == "ok" else result["message"] or "no reason was given"
    return LegOutcome(name, failure, found)


def default_memory_mb() -> float | None:
    """Three quarters of the memory that is free; None where the system does not tell."""
    free = available_mib()
    return None if free is None else free * _FREE_SHARE
