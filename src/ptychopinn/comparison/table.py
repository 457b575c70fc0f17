"""The table of a comparison or study: a row for each candidate, cell, scan and figure, failed ones too."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.atomic import write_csv
from ptychopinn.comparison.cells import Cell, Point
from ptychopinn.comparison.scoring import AGAINST_REFERENCE, QUANTITIES, Figure, all_figures, best_candidates
from ptychopinn.errors import DataError

PASSES: Figure = ("run", "passes")
_OF_RUN = ("patterns", "training_seconds", "reconstruction_seconds", "patterns_per_second", "peak_anonymous_mib")
RUN_FIGURES: tuple[Figure, ...] = (PASSES, *(("run", name) for name in _OF_RUN))
_OF_BASELINE: tuple[Figure, ...] = (
    *((quantity, metric) for quantity in QUANTITIES for metric in AGAINST_REFERENCE),
    ("object", "nrmse"),
    ("object", "residual"),
    ("run", "training_seconds"),
    ("run", "reconstruction_seconds"),
)
MINUS = "_minus_baseline"
DISTANCE: Figure = ("object", "nrmse_to_baseline")
_COLUMNS = ("leg", "scan", "quantity", "metric", "value", "status", "message")
_POINT = tuple(field.name for field in fields(Point))
_CELL = (*_POINT, "seed", "repeat")
_NOT_MEASURED = "not measured: of an interrupted run, on a Dask cluster, or on a system that does not report it"
_NO_VALUE = {"passes": "it does not say how many", "peak_anonymous_mib": _NOT_MEASURED}


class Status(StrEnum):
    """Status of a row."""

    OK = "ok"
    SKIPPED = "skipped"  # there is no such value; not a failure
    FAILED = "failed"  # the candidate failed


@dataclass(frozen=True)
class Row:
    """One value."""

    candidate: str
    scan: str
    quantity: str
    metric: str
    value: float | None  # None unless the status is ok
    status: Status
    message: str = ""  # why there is no value
    cell: Cell | None = None  # cell of a study; None in a comparison


@dataclass(frozen=True)
class CandidateOutcome:
    """Results of a candidate."""

    name: str
    failure: str  # why it failed; empty if it did not
    # Finished scans to their figures, and the reasons of skipped ones.
    scans: Mapping[str, tuple[Mapping[Figure, float], Mapping[Figure, str]]]
    cell: Cell | None = None  # cell of a study; None in a comparison
    side_by_side: bool = False  # whether others may have run at the same time, so that its durations are no measure


@dataclass(frozen=True)
class Median:
    """The values of one candidate at one point of a study, over seeds and repeats."""

    candidate: str
    point: Point
    quantity: str
    metric: str
    # The median and the two percentiles; None if there is no value.
    median: float | None
    low: float | None
    high: float | None
    # Number of values, and of cells in which the candidate failed.
    count: int
    failed: int


def passes_text(passes: float) -> str:
    """The passes of a candidate in words; a network that makes none is alone."""
    return "alone" if passes == 0 else "1 pass" if passes == 1 else f"{passes:g} passes"


def comparison_figures() -> list[Figure]:
    """The (quantity, metric) pairs of a comparison, in the order of the table."""
    differences = [(quantity, metric + MINUS) for quantity, metric in _OF_BASELINE]
    return [*all_figures(), *RUN_FIGURES, DISTANCE, *differences]


def study_figures() -> list[Figure]:
    """The (quantity, metric) pairs of a study, which has no baseline and no halves."""
    return [*(figure for figure in all_figures() if figure[1] != "frc50_split"), *RUN_FIGURES]


def make_rows(
    outcomes: Sequence[CandidateOutcome],
    scans: Sequence[str],
    figures: Sequence[Figure],
    baseline: str | None = None,
    distances: Mapping[tuple[str, str], float | str] | None = None,
) -> list[Row]:
    """All rows of a comparison or study.

    Parameters
    ----------
    figures:
        The figures, one row each for each candidate and scan.
    baseline:
        Name of the baseline candidate, if there is one.
    distances:
        (candidate, scan) to ``|R - B| / |B|``, R the candidate's object, B the baseline's; or why there is none.
    """
    of_baseline = next((outcome.scans for outcome in outcomes if outcome.name == baseline), {})
    rows = []
    for outcome in outcomes:
        for scan in scans:
            known, skipped = outcome.scans.get(scan, ({}, {}))
            base, _ = of_baseline.get(scan, ({}, {}))
            failed = outcome.failure if scan not in outcome.scans else ""
            for figure in figures:
                value, reason = _value(figure, known, skipped, base, (distances or {}).get((outcome.name, scan)))
                if failed:
                    status, value, reason = Status.FAILED, None, failed
                else:
                    status = Status.SKIPPED if value is None else Status.OK
                rows.append(Row(outcome.name, scan, *figure, value, status, reason, outcome.cell))
    return rows


def medians_of(rows: Iterable[Row], percentiles: tuple[float, float]) -> list[Median]:
    """Medians over seeds and repeats of the cells, in the order of the rows."""
    groups: dict[tuple[str, Point, str, str], list[Row]] = {}
    for row in rows:
        assert row.cell is not None
        groups.setdefault((row.candidate, row.cell.point, row.quantity, row.metric), []).append(row)
    found = []
    for key, members in groups.items():
        values = [row.value for row in members if row.value is not None]
        failed = sum(row.status is Status.FAILED for row in members)
        wanted = (50.0, *percentiles)
        middle, low, high = map(float, np.percentile(values, wanted)) if values else (None, None, None)
        found.append(Median(*key, middle, low, high, len(values), failed))
    return found


def _value(
    figure: Figure,
    known: Mapping[Figure, float],
    skipped: Mapping[Figure, str],
    base: Mapping[Figure, float],
    distance: float | str | None,
) -> tuple[float | None, str]:
    """A value, or None and the reason."""
    if figure == DISTANCE:
        return (distance, "") if isinstance(distance, float) else (None, distance or "the baseline has no object")
    quantity, metric = figure
    if metric.endswith(MINUS):
        source = (quantity, metric.removesuffix(MINUS))
        if source in known and source in base:
            return _finite(known[source] - base[source])
        return None, skipped.get(source, "the baseline has no value")
    if figure in known:
        return _finite(known[figure])
    return None, skipped.get(figure, _NO_VALUE.get(metric, "not known"))


def _finite(value: float) -> tuple[float | None, str]:
    return (value, "") if math.isfinite(value) else (None, f"not finite: {value}")


def write_table(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows as CSV, with the axes of a study after the candidate; unknown values are empty."""
    axes = _CELL if any(row.cell is not None for row in rows) else ()
    columns = (_COLUMNS[0], *axes, *_COLUMNS[1:])
    return write_csv(path, columns, ((row.candidate, *_places(row.cell), *astuple(row)[1:-1]) for row in rows))


def write_medians(path: Path, medians: Sequence[Median]) -> Path:
    """Write medians as CSV."""
    columns = ("leg", *_POINT, "quantity", "metric", "median", "low", "high", "count", "failed")
    lines = (
        (m.candidate, *astuple(m.point), m.quantity, m.metric, m.median, m.low, m.high, m.count, m.failed)
        for m in medians
    )
    return write_csv(path, columns, lines)


def _places(cell: Cell | None) -> tuple[object, ...]:
    return () if cell is None else (*astuple(cell.point), cell.seed, cell.repeat)


def read_table(path: Path) -> list[Row]:
    """Read the table of a comparison. Raises DataError if it does not exist, or a column, number or status is wrong."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file)) or [[]]
        if header != list(_COLUMNS):
            raise ValueError(f"the columns are {','.join(header)}")
        return [_row(line) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", f"Its columns are {','.join(_COLUMNS)}.") from error


def _row(line: Sequence[str]) -> Row:
    candidate, scan, quantity, metric, value, status, message = line
    return Row(candidate, scan, quantity, metric, float(value) if value else None, Status(status), message)


def summarise(rows: Sequence[Row], baseline: str) -> dict[str, Any]:
    """The table as nested mappings (candidate, scan, quantity, metric to value), and the best candidates."""
    candidates: dict[str, Any] = {}
    for row in rows:
        candidate = candidates.setdefault(row.candidate, {"status": str(Status.OK), "message": "", "scans": {}})
        if row.status is Status.FAILED:
            candidate["status"], candidate["message"] = str(Status.FAILED), row.message
        values = candidate["scans"].setdefault(row.scan, {}).setdefault(row.quantity, {})
        if not row.metric.endswith(MINUS):
            values[row.metric] = row.value
    return {"baseline": baseline, "legs": candidates, "best": _best(rows)}


def _best(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Scan to ``quantity metric`` to the first candidate with the best value."""
    values: dict[tuple[str, str, str], dict[str, float | None]] = {}
    for row in rows:
        values.setdefault((row.scan, row.quantity, row.metric), {})[row.candidate] = row.value
    found: dict[str, dict[str, str]] = {}
    for (scan, quantity, metric), known in values.items():
        if best := best_candidates(metric, known):
            found.setdefault(scan, {})[f"{quantity} {metric}"] = best[0]
    return found
