"""Compare reconstructors over a grid of simulated scans; every leg of every cell is kept by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from ptychopinn.comparison.files import digest_of, write_json
from ptychopinn.comparison.leg import Limits, default_memory_mb, run_leg
from ptychopinn.comparison.legs import LegPlan, LegSettings, plan_legs
from ptychopinn.comparison.run import WORTH
from ptychopinn.comparison.scoring import Figure, all_figures
from ptychopinn.comparison.table import RUN_FIGURES, LegOutcome, Status
from ptychopinn.config.comparison import ComparisonConfig
from ptychopinn.config.simulation import SimulationConfig
from ptychopinn.config.study import StudyConfig
from ptychopinn.errors import ConfigError
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.plugins import Registry, discover
from ptychopinn.study import page
from ptychopinn.study.cells import Cell, cells_of, check_simulation, scans_of
from ptychopinn.study.table import Median, StudyRow, medians_of, write_medians, write_rows
from ptychopinn.typing import StrPath
from ptychopinn.workflows._folder import Kind, output_folder

MANIFEST, METRICS, MEDIANS, REPORT = "study.json", "study_metrics.csv", "study_medians.csv", "report.html"
_LEGS, _SCANS, _PICTURES = "legs", "scans", "pictures"
_STUDY = Kind(
    "study",
    frozenset({MANIFEST, METRICS, MEDIANS, REPORT, _LEGS, _SCANS, _PICTURES}),
    worth=WORTH,
    mark=MANIFEST,
    begins=True,
)


@dataclass(frozen=True)
class StudyResult:
    """What a study made.

    Attributes
    ----------
    folder:
        Where everything lies.
    medians:
        Its table.
    files:
        What was written, by kind.
    failed:
        "leg in cell" to the reason why it failed.
    """

    folder: Path
    medians: tuple[Median, ...]
    files: Mapping[str, Path]
    failed: Mapping[str, str]


def figures_of_a_study() -> list[Figure]:
    """Every (quantity, metric) that a study has rows of."""
    return [*(figure for figure in all_figures() if figure[1] != "frc50_split"), *RUN_FIGURES]


def study_run(
    config: StudyConfig,
    output: StrPath,
    *,
    simulation: SimulationConfig | None = None,
    settings: LegSettings | None = None,
    limits: ComparisonConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> StudyResult:
    """Run a study.

    Parameters
    ----------
    config:
        Legs and axes.
    output:
        The directory to make.
    simulation:
        What all scans have in common.
    settings:
        Fields of the configurations of all legs.
    limits:
        Memory and time of a leg; nothing else of it acts.
    resume:
        Keep what is done, by content, and go on. Cells that the study does not have any more stay, too.
    overwrite:
        Replace a study that is there.
    monitor:
        Progress and cancellation.

    Raises
    ------
    PtychoPinnError
        Whatever is refused, before any long work.
    Cancelled
        If the monitor was cancelled; what is done stays for ``resume``.
    """
    simulation, settings, limits = (
        simulation or SimulationConfig(),
        settings or LegSettings(),
        limits or ComparisonConfig(),
    )
    check_simulation(simulation)
    figures = figures_of_a_study()
    _check_metrics(config, figures)
    registry, version = discover(), metadata.version("ptychopinn")
    cells = list(cells_of(config))
    for cell in cells:
        _plans(config, cell, settings, registry, simulation.N, version)
    with output_folder(output, _STUDY, overwrite=overwrite, resume=resume, kept=WORTH) as folder:
        for name in (_LEGS, _SCANS, _PICTURES):
            (folder / name).mkdir(exist_ok=True)
        write_json(
            folder / MANIFEST,
            {
                "version": version,
                "study": config.model_dump(mode="json"),
                "simulation": simulation.model_dump(mode="json"),
                "settings": {
                    leg.name: leg.as_dict()
                    for leg in _plans(config, cells[0], settings, registry, simulation.N, version)
                },
            },
        )
        limit = Limits(limits.memory_mb or default_memory_mb(), limits.leg_seconds)
        rows: list[StudyRow] = []
        pictures: dict[tuple[Cell, str], Path] = {}
        failed = {}
        for done, cell in enumerate(cells):
            monitor.report("cells", done, len(cells))
            scans = scans_of(cell, simulation, folder / _SCANS, monitor)
            for plan in _plans(config, cell, settings, registry, simulation.N, version):
                used = scans if plan.is_network else {"test": scans["test"]}
                content = {"plan": plan.as_dict(), "scans": {name: source.digest for name, source in used.items()}}
                home = folder / _LEGS / f"{plan.name}-{digest_of(content)[:16]}"
                outcome = run_leg(home, plan, used, (), limits=limit, monitor=monitor)
                rows += _rows(outcome, cell, figures)
                pictures[cell, plan.name] = home
                if outcome.failure:
                    failed[f"{plan.name} at {cell.name}"] = outcome.failure
        monitor.report("cells", len(cells), len(cells))
        medians = medians_of(rows, config.percentiles)
        files = {"table": write_rows(folder / METRICS, rows), "medians": write_medians(folder / MEDIANS, medians)}
        files["report"] = page.write_page(
            folder / REPORT, folder / _PICTURES, config, simulation, medians, pictures, failed
        )
        return StudyResult(folder, tuple(medians), files, failed)


def _check_metrics(config: StudyConfig, figures: list[Figure]) -> None:
    known = [" ".join(figure) for figure in figures]
    if strange := [name for name in config.metrics if name not in known]:
        raise ConfigError(f"The metric '{strange[0]}' is not known.", f"Use some of {', '.join(known)}.")


def _plans(
    config: StudyConfig, cell: Cell, settings: LegSettings, registry: Registry, size: int, version: str
) -> list[LegPlan]:
    """The legs of a cell: with its gridsize and a seed of its repeat."""
    model: dict[str, Any] = dict(settings.model)
    if cell.point.gridsize is not None:
        model["gridsize"] = cell.point.gridsize
    seeds = {
        "train": {**settings.train, "seed": int(settings.train.get("seed", 0)) + cell.repeat},
        "solver": {**settings.solver, "seed": int(settings.solver.get("seed", 0)) + cell.repeat},
    }
    return plan_legs(config.legs, replace(settings, model=model, **seeds), registry, size, version)


def _rows(outcome: LegOutcome, cell: Cell, figures: list[Figure]) -> list[StudyRow]:
    known, skipped = outcome.scans.get("test", ({}, {}))
    rows = []
    for quantity, metric in figures:
        value = known.get((quantity, metric))
        if value is not None:
            status, reason = Status.OK, ""
        elif outcome.failure:
            status, reason = Status.FAILED, outcome.failure
        else:
            status, reason = Status.SKIPPED, skipped.get((quantity, metric), "not known")
        rows.append(StudyRow(outcome.name, cell, quantity, metric, value, status, reason))
    return rows
