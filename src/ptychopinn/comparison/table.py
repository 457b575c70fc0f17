"""The table of a comparison: a row for each leg, scan, quantity and metric, whatever became of the leg."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from ptychopinn.comparison.files import write_csv
from ptychopinn.comparison.scoring import AGAINST_REFERENCE, QUANTITIES, Figure, all_figures
from ptychopinn.errors import DataError

RUN_FIGURES: tuple[Figure, ...] = tuple(
    ("run", name)
    for name in ("patterns", "training_seconds", "reconstruction_seconds", "patterns_per_second", "peak_anonymous_mib")
)
_OF_BASELINE: tuple[Figure, ...] = (
    *((quantity, metric) for quantity in QUANTITIES for metric in AGAINST_REFERENCE),
    ("object", "nrmse"),
    ("object", "residual"),
    ("run", "training_seconds"),
    ("run", "reconstruction_seconds"),
)
MINUS = "_minus_baseline"
DISTANCE: Figure = ("object", "nrmse_to_baseline")
_NOT_MEASURED = "not measured: done in an earlier run that was cut short, or the system does not tell"


class Status(StrEnum):
    """What a row's value is worth."""

    OK = "ok"
    SKIPPED = "skipped"  # there is no such value, and that is no failure
    FAILED = "failed"  # the leg came to no end


@dataclass(frozen=True)
class Row:
    """One value; the fields are the columns of the table.

    Attributes
    ----------
    value:
        None unless the status is ok.
    message:
        Why there is no value.
    """

    leg: str
    scan: str
    quantity: str
    metric: str
    value: float | None
    status: Status
    message: str = ""


@dataclass(frozen=True)
class LegOutcome:
    """What came of a leg.

    Attributes
    ----------
    name:
        Of the leg.
    failure:
        Why it failed; empty if it did not.
    scans:
        Scan to its figures and to the reasons of those that were skipped; a scan that was not finished is not there.
    """

    name: str
    failure: str
    scans: Mapping[str, tuple[Mapping[Figure, float], Mapping[Figure, str]]]


def expected_figures() -> list[Figure]:
    """Every (quantity, metric) that each leg has a row of for each scan, in order."""
    differences = [(quantity, metric + MINUS) for quantity, metric in _OF_BASELINE]
    return [*all_figures(), *RUN_FIGURES, DISTANCE, *differences]


def make_rows(
    outcomes: Sequence[LegOutcome],
    scans: Sequence[str],
    baseline: str,
    distances: Mapping[tuple[str, str], float | str],
) -> list[Row]:
    """All rows of a comparison.

    Parameters
    ----------
    outcomes:
        What came of each leg, in order.
    scans:
        Names of the scans, in order.
    baseline:
        Name of the leg that the others are told from.
    distances:
        (leg, scan) to ``|R - B| / |B|``, R the leg's and B the baseline's object; or why there is none.
    """
    of_baseline = next(outcome for outcome in outcomes if outcome.name == baseline)
    rows = []
    for outcome in outcomes:
        for scan in scans:
            known, skipped = outcome.scans.get(scan, ({}, {}))
            base, _ = of_baseline.scans.get(scan, ({}, {}))
            failed = outcome.failure if scan not in outcome.scans else ""
            for quantity, metric in expected_figures():
                value, reason = _value((quantity, metric), known, skipped, base, distances.get((outcome.name, scan)))
                if failed:
                    status, value, reason = Status.FAILED, None, failed
                else:
                    status = Status.SKIPPED if value is None else Status.OK
                rows.append(Row(outcome.name, scan, quantity, metric, value, status, reason))
    return rows


def _value(
    figure: Figure,
    known: Mapping[Figure, float],
    skipped: Mapping[Figure, str],
    base: Mapping[Figure, float],
    distance: float | str | None,
) -> tuple[float | None, str]:
    """A value, or None and why."""
    if figure == DISTANCE:
        return (distance, "") if isinstance(distance, float) else (None, distance or "the baseline has no picture")
    quantity, metric = figure
    if metric.endswith(MINUS):
        source = (quantity, metric.removesuffix(MINUS))
        if source in known and source in base:
            return _finite(known[source] - base[source])
        return None, skipped.get(source, "the baseline has no value")
    if figure in known:
        return _finite(known[figure])
    return None, skipped.get(figure, _NOT_MEASURED if metric == "peak_anonymous_mib" else "not known")


def _finite(value: float) -> tuple[float | None, str]:
    return (value, "") if math.isfinite(value) else (None, f"not finite: {value}")


def write_table(path: Path, rows: Iterable[Row]) -> Path:
    """Write rows as CSV; a value that is not known is empty."""
    return write_csv(path, (field.name for field in fields(Row)), map(astuple, rows))


def read_table(path: Path) -> list[Row]:
    """Read what `write_table` wrote.

    Raises
    ------
    DataError
        If it is not there, or a column, a number or a status is not what it should be.
    """
    columns = [field.name for field in fields(Row)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file)) or [[]]
        if header != columns:
            raise ValueError(f"the columns are {','.join(header)}")
        return [_row(*line) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", f"Its columns are {','.join(columns)}.") from error


def _row(leg: str, scan: str, quantity: str, metric: str, value: str, status: str, message: str) -> Row:
    return Row(leg, scan, quantity, metric, float(value) if value else None, Status(status), message)


def summarise(rows: Sequence[Row], baseline: str) -> dict[str, Any]:
    """The table as nested mappings: leg, scan, quantity, metric to value; and which leg is best at what."""
    legs: dict[str, Any] = {}
    for row in rows:
        leg = legs.setdefault(row.leg, {"status": str(Status.OK), "message": "", "scans": {}})
        if row.status is Status.FAILED:
            leg["status"], leg["message"] = str(Status.FAILED), row.message
        values = leg["scans"].setdefault(row.scan, {}).setdefault(row.quantity, {})
        if not row.metric.endswith(MINUS):
            values[row.metric] = row.value
    return {"baseline": baseline, "legs": legs, "best": _best(rows)}


def _best(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Scan to ``quantity metric`` to the leg with the best value."""
    lower = {"mae", "mse", "nrmse", "residual", "training_seconds", "reconstruction_seconds", "peak_anonymous_mib"}
    higher = {"psnr", "ssim", "ms_ssim", "corr", "frc50", "frc50_split", "patterns_per_second"}
    found: dict[str, dict[str, tuple[float, str]]] = {}
    for row in rows:
        if row.value is None or row.metric not in lower | higher:
            continue
        rank = row.value if row.metric in lower else -row.value
        best = found.setdefault(row.scan, {})
        name = f"{row.quantity} {row.metric}"
        if name not in best or rank < best[name][0]:
            best[name] = (rank, row.leg)
    return {scan: {name: leg for name, (_, leg) in best.items()} for scan, best in found.items()}
