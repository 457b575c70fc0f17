"""The plots and the report of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ptychopinn.atomic import write_bytes
from ptychopinn.comparison.cells import Cell, Point
from ptychopinn.comparison.files import read_arrays
from ptychopinn.comparison.scoring import best_candidates
from ptychopinn.comparison.table import PASSES, Median, passes_text
from ptychopinn.config.simulation import SimulationConfig
from ptychopinn.config.study import StudyConfig
from ptychopinn.report import Curve, Panel, ReportContent, Table, curves_picture, montage_picture, write_report
from ptychopinn.typing import ComplexArray

_AXES = {
    "photons": "photons a pattern",
    "overlap": "overlap",
    "train_patterns": "training patterns",
    "gridsize": "gridsize",
}
_MAX_IN_MONTAGE = 6


@dataclass(frozen=True)
class StudyOutcome:
    """What came of a study."""

    medians: Sequence[Median]  # of every candidate and figure at every point
    homes: Mapping[tuple[Cell, str], Path]  # (cell, candidate) to the folder of the candidate
    failed: Mapping[str, str]  # "candidate in cell" to the reason
    side_by_side: int  # results of candidates that ran beside others


def write_study_report(
    path: Path,
    pictures: Path,
    config: StudyConfig,
    simulation: SimulationConfig,
    outcome: StudyOutcome,
) -> Path:
    """Write the plots and the report of a study."""
    medians = outcome.medians
    across, down, others = _layout(config)
    figures: list[tuple[str, bytes]] = []

    def keep(name: str, caption: str, png: bytes) -> None:
        write_bytes(pictures / f"{name}.png", png)
        figures.append((caption, png))

    def heading(column: object) -> str:
        return "" if len(getattr(config, down)) == 1 else f"{_AXES[down]} {_text(column)}"

    low, high = config.percentiles
    band = (
        f"lines are medians over {len(config.seeds)} x {config.repeats} runs, bands the {low:g} to {high:g} percentiles"
    )
    for fixed in others:
        varied = {name: value for name, value in fixed.items() if len(getattr(config, name)) > 1}
        suffix = "".join(f"-{name}-{_text(value)}" for name, value in varied.items())
        title = ", ".join(f"{_AXES[name]} {_text(value)}" for name, value in varied.items())
        panels = [
            [
                _panel(metric, across, {**fixed, down: column}, heading(column), config, medians)
                for column in getattr(config, down)
            ]
            for metric in config.metrics
        ]
        png = curves_picture(panels, _AXES[across], log=across == "photons", title=title)
        keep(f"curves{suffix}", f"Scores over {_AXES[across]}; {band}.", png)
        for column in getattr(config, down):
            rows = _montage(across, {**fixed, down: column}, config, outcome.homes)
            if rows:
                where = [heading(column)] if heading(column) else []
                name = f"phase{suffix}" + (f"-{down}-{_text(column)}" if where else "")
                png = montage_picture("phase", rows, title=", ".join(["phase", *where, *filter(None, [title])]))
                caption = ", ".join([f"Phases of the test part, seed {config.seeds[0]}", *where])
                keep(name, f"{caption}; each column on the scale of its reference.", png)
    part = simulation.rows * simulation.cols
    lead = (
        f"{', '.join(_labels(medians).values())} on simulated scans of {simulation.N} x {simulation.N} pixels. "
        f"Training and test scan are parts of one object, {part} patterns each, that share no pixel."
    )
    if outcome.side_by_side:
        lead += (
            f" {outcome.side_by_side} results are of candidates that ran beside others: their durations are no measure."
        )
    content = ReportContent(
        title="Study",
        lead=lead,
        warnings=[f"{where} failed: {reason}" for where, reason in outcome.failed.items()],
        summary=_win_counts(config, medians),
        grids={f"Median {metric}": _median_table(metric, across, config, medians) for metric in config.metrics},
        figures=figures,
        wide=True,
        tables={
            "Axes": {
                **{name: ", ".join(map(_text, getattr(config, axis))) for axis, name in _AXES.items()},
                "seeds": ", ".join(map(str, config.seeds)),
                "repeats": str(config.repeats),
            },
            "Simulation": {key: _text(value) for key, value in simulation.model_dump(mode="json").items()},
        },
    )
    return write_report(path, content)


def _layout(config: StudyConfig) -> tuple[str, str, list[dict[str, Any]]]:
    """The axis across a panel, the axis of the panels side by side, and all combinations of the others."""
    ranked = sorted(_AXES, key=lambda name: len(getattr(config, name)) < 2)  # stable; varying axes first
    across, down, *rest = ranked
    values = [getattr(config, name) for name in rest]
    return across, down, [dict(zip(rest, chosen, strict=True)) for chosen in product(*values)]


def _panel(
    metric: str,
    across: str,
    fixed: Mapping[str, Any],
    title: str,
    config: StudyConfig,
    medians: Sequence[Median],
) -> Panel:
    curves, labels = {}, _labels(medians)
    for candidate in labels:
        known = {
            getattr(m.point, across): m
            for m in medians
            if m.candidate == candidate
            and f"{m.quantity} {m.metric}" == metric
            and m.median is not None
            and asdict(m.point).items() >= fixed.items()
        }
        found = [(x, known[x]) for x in getattr(config, across) if x in known]
        xs = [float("nan") if x is None else float(x) for x, _ in found]
        curves[labels[candidate]] = Curve(
            xs, *([getattr(m, name) for _, m in found] for name in ("median", "low", "high"))
        )
    return Panel(metric, title, curves)


def _montage(
    across: str, fixed: Mapping[str, Any], config: StudyConfig, homes: Mapping[tuple[Cell, str], Path]
) -> dict[str, dict[str, ComplexArray]]:
    """Objects by column (value across) and row (the reference and every candidate)."""
    columns: dict[str, dict[str, ComplexArray]] = {}
    for value in getattr(config, across)[:_MAX_IN_MONTAGE]:
        cell = Cell(Point(**{**fixed, across: value}), config.seeds[0], 0)
        shown: dict[str, ComplexArray] = {}
        for (other, candidate), home in homes.items():
            arrays = read_arrays(home, "test") if other == cell else {}
            if "reference" in arrays:
                shown.setdefault("reference", arrays["reference"])
                shown[candidate] = arrays["reconstruction"]
        if shown:
            columns[f"{_AXES[across]} {_text(value)}"] = shown
    return columns


def _median_table(metric: str, across: str, config: StudyConfig, medians: Sequence[Median]) -> Table:
    """Table of medians: the values of the axis across are columns; candidates at all other values are rows."""
    chosen = [m for m in medians if f"{m.quantity} {m.metric}" == metric]
    values = getattr(config, across)
    points = list(dict.fromkeys(_with_axis_value(m.point, across, values[0]) for m in chosen))
    labels = _labels(medians)
    candidates = list(labels)
    table = {(m.candidate, m.point): m for m in chosen}
    varied = [name for name in _AXES if name != across and len(getattr(config, name)) > 1]
    rows: list[list[str]] = []
    best = set()
    for point in points:
        where = ", ".join(f"{_AXES[name]} {_text(getattr(point, name))}" for name in varied)
        first = len(rows)
        for candidate in candidates:
            found = [table.get((candidate, _with_axis_value(point, across, value))) for value in values]
            rows.append([f"{labels[candidate]}{', ' + where if where else ''}", *(_cell(m) for m in found)])
        for column, value in enumerate(values, 1):
            here = {
                candidate: table[candidate, at].median
                for candidate in candidates
                if (candidate, at := _with_axis_value(point, across, value)) in table
            }
            best |= {
                (first + candidates.index(candidate), column) for candidate in best_candidates(metric.split()[-1], here)
            }
    return Table(["candidate", *(f"{_AXES[across]} {_text(value)}" for value in values)], rows, frozenset(best))


def _with_axis_value(point: Point, axis: str, value: Any) -> Point:
    """The point at another value of one axis."""
    return Point(**{**asdict(point), axis: value})


def _win_counts(config: StudyConfig, medians: Sequence[Median]) -> dict[str, str]:
    """Number of points at which each candidate is best, by metric."""
    cards = {}
    for metric in config.metrics:
        points: dict[Point, dict[str, float | None]] = {}
        for m in medians:
            if f"{m.quantity} {m.metric}" == metric:
                points.setdefault(m.point, {})[m.candidate] = m.median
        won = [candidate for at in points.values() for candidate in best_candidates(metric.split()[-1], at)]
        counts = {candidate: won.count(candidate) for candidate in _candidates(medians)}
        shown = ", ".join(f"{candidate} {count}" for candidate, count in counts.items() if count)
        cards[f"best {metric}, number of {len(points)} points"] = shown or "none"
    return cards


def _candidates(medians: Sequence[Median]) -> list[str]:
    return list(dict.fromkeys(m.candidate for m in medians))


def _labels(medians: Sequence[Median]) -> dict[str, str]:
    """Each candidate with its passes, as far as they are known."""
    known = {m.candidate: m.median for m in medians if (m.quantity, m.metric) == PASSES and m.median is not None}
    return {name: f"{name}, {passes_text(known[name])}" if name in known else name for name in _candidates(medians)}


def _cell(median: Median | None) -> str:
    if median is None or median.median is None:
        return "failed" if median is not None and median.failed else "-"
    spread = f" ({median.low:.3g} to {median.high:.3g})" if median.count > 1 else ""
    return f"{median.median:.3g}{spread}"


def _text(value: object) -> str:
    if value is None:
        return "default"
    return f"{value:g}" if isinstance(value, float) else str(value)
