"""The tables of a study: every value, and medians with percentiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from ptychopinn.comparison.files import write_csv
from ptychopinn.comparison.table import Status
from ptychopinn.study.cells import Cell, Point

_POINT = tuple(field.name for field in fields(Point))


@dataclass(frozen=True)
class StudyRow:
    """One value of one leg in one cell.

    Attributes
    ----------
    value:
        None unless the status is ok.
    message:
        Why there is no value.
    """

    leg: str
    cell: Cell
    quantity: str
    metric: str
    value: float | None
    status: Status
    message: str = ""


@dataclass(frozen=True)
class Median:
    """The values of one leg at one point, over seeds and repeats.

    Attributes
    ----------
    median, low, high:
        The median and the two percentiles asked for; None where there is no value.
    count, failed:
        Values there are, and cells in which the leg failed.
    """

    leg: str
    point: Point
    quantity: str
    metric: str
    median: float | None
    low: float | None
    high: float | None
    count: int
    failed: int


def medians_of(rows: Iterable[StudyRow], percentiles: tuple[float, float]) -> list[Median]:
    """Medians over seeds and repeats, in the order of the rows."""
    groups: dict[tuple[str, Point, str, str], list[StudyRow]] = {}
    for row in rows:
        groups.setdefault((row.leg, row.cell.point, row.quantity, row.metric), []).append(row)
    found = []
    for key, members in groups.items():
        values = [row.value for row in members if row.value is not None]
        failed = sum(row.status is Status.FAILED for row in members)
        low, middle, high = (
            (float(v) for v in np.percentile(values, (percentiles[0], 50, percentiles[1])))
            if values
            else (None, None, None)
        )
        found.append(Median(*key, middle, low, high, len(values), failed))
    return found


def write_rows(path: Path, rows: Sequence[StudyRow]) -> Path:
    """Write every value as CSV."""
    columns = ("leg", *_POINT, "seed", "repeat", "quantity", "metric", "value", "status", "message")
    lines = (
        (r.leg, *astuple(r.cell.point), r.cell.seed, r.cell.repeat, r.quantity, r.metric, r.value, r.status, r.message)
        for r in rows
    )
    return write_csv(path, columns, lines)


def write_medians(path: Path, medians: Sequence[Median]) -> Path:
    """Write the medians as CSV."""
    columns = ("leg", *_POINT, "quantity", "metric", "median", "low", "high", "count", "failed")
    lines = (
        (m.leg, *astuple(m.point), m.quantity, m.metric, m.median, m.low, m.high, m.count, m.failed) for m in medians
    )
    return write_csv(path, columns, lines)
