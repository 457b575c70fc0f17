"""The results of a batch: one row a scan in a table, and one report with a thumbnail of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ptychopinn.atomic import write_csv
from ptychopinn.config.batch import Workflow
from ptychopinn.report import ReportContent, Table, write_report

_EXPLAINED = "the share that the result explains of what noise allows to explain"
SCORES = dict.fromkeys(Workflow, _EXPLAINED) | {
    Workflow.EVALUATE: "the similarity (SSIM) of the phase and its reference"
}
_SHOWN = ("forward residual R", "explains the data", "phase_ssim", "amplitude_ssim")
_MAX_WARNINGS = 10


class ScanStatus(StrEnum):
    """What became of a scan."""

    DONE = "done"
    FAILED = "failed"
    OPEN = "open"  # not done when the batch ended


@dataclass(frozen=True)
class ScanOutcome:
    """What became of a scan of a batch."""

    name: str
    path: Path
    folder: Path  # its run directory
    status: ScanStatus
    score: float | None = None  # higher is better; None if it is not known
    figures: Mapping[str, float | int | str | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    message: str = ""  # why it failed
    thumbnail: Path | None = None


def by_score(outcomes: Sequence[ScanOutcome]) -> list[ScanOutcome]:
    """Outcomes, the best first; those without a score are last, in their order."""
    return sorted(outcomes, key=lambda one: (one.score is None, -(one.score or 0.0)))


def write_outcomes(path: Path, outcomes: Sequence[ScanOutcome]) -> Path:
    """Write a CSV file with a row for each scan in the order of the batch, and a column for each figure."""
    names = list(dict.fromkeys(name for one in outcomes for name in one.figures))
    columns = ["name", "path", "folder", "status", "score", "message", "warnings", *names]
    lines = [
        [
            *(one.name, str(one.path), str(one.folder.relative_to(path.parent)), str(one.status), one.score),
            *(one.message, " ".join(one.warnings), *(one.figures.get(name) for name in names)),
        ]
        for one in outcomes
    ]
    return write_csv(path, columns, lines)


def write_batch_report(path: Path, outcomes: Sequence[ScanOutcome], workflow: Workflow) -> Path:
    """Write the report of a batch; its thumbnails and its table begin with the best score."""
    ranked = by_score(outcomes)
    shown = [name for name in _SHOWN if any(name in one.figures for one in ranked)]
    rows = [
        [one.name, str(one.status), one.score, *(one.figures.get(name) for name in shown), one.message]
        for one in ranked
    ]
    failed = [f"{one.name} failed: {one.message}" for one in outcomes if one.status is ScanStatus.FAILED]
    if len(failed) > _MAX_WARNINGS:
        failed[_MAX_WARNINGS:] = [f"And {len(failed) - _MAX_WARNINGS} more failed; the table says why."]
    doubted = sum(bool(one.warnings) for one in outcomes)
    counts = Counter(str(one.status) for one in outcomes)
    content = ReportContent(
        title=f"Batch: {workflow} of {len(outcomes)} scans",
        lead=f"The score is {SCORES[workflow]}; the best is first. Each scan has a report in scans/NAME.",
        summary={**counts, "with warnings": doubted},
        warnings=failed,
        thumbnails=[(_caption(one), one.thumbnail) for one in ranked if one.thumbnail is not None],
        grids={"All scans": Table(["scan", "status", "score", *shown, "message"], rows, folded=True)},
    )
    return write_report(path, content)


def _caption(outcome: ScanOutcome) -> str:
    return outcome.name if outcome.score is None else f"{outcome.name}: {outcome.score:.3f}"
