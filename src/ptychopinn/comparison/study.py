"""Compare reconstructors over a grid of simulated scans."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from ptychopinn.atomic import write_json
from ptychopinn.comparison.candidate_run import CandidateJobs, CandidateRun, default_memory_mb, run_candidates
from ptychopinn.comparison.candidates import CandidatePlan, Planner
from ptychopinn.comparison.cells import Cell, cells_of, check_simulation, scans_of
from ptychopinn.comparison.run import KEEP_PATTERNS, ComparisonResult
from ptychopinn.comparison.study_report import StudyOutcome, write_study_report
from ptychopinn.comparison.table import (
    Median,
    make_rows,
    medians_of,
    study_figures,
    write_medians,
    write_table,
)
from ptychopinn.config.comparison import NOT_SHARED, ComparisonConfig
from ptychopinn.config.execution import Accelerator
from ptychopinn.config.run import AllSettings
from ptychopinn.config.study import StudyConfig
from ptychopinn.digests import digest_of
from ptychopinn.errors import ConfigError, UsageError
from ptychopinn.jobs import LocalWorkers, choose_workers
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.plugins import discover
from ptychopinn.report import attempt
from ptychopinn.typing import StrPath
from ptychopinn.workflows.folders import FolderKind, output_folder

MANIFEST, METRICS, MEDIANS, REPORT = "study.json", "study_metrics.csv", "study_medians.csv", "report.html"
_LIMITS = ("memory_mb", "leg_seconds")
_LEGS, _SCANS, _PICTURES = "legs", "scans", "pictures"
_STUDY = FolderKind(
    "study",
    frozenset({MANIFEST, METRICS, MEDIANS, REPORT, _LEGS, _SCANS, _PICTURES}),
    keep=KEEP_PATTERNS,
    marker=MANIFEST,
    creates_on_resume=True,
)


@dataclass(frozen=True)
class StudyResult(ComparisonResult):
    """Results of a study; ``failed`` names candidates with their cell."""

    medians: tuple[Median, ...]


def study_run(
    settings: AllSettings[Any, Any],
    output: StrPath,
    *,
    resume: bool = False,
    overwrite: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> StudyResult:
    """Run a study.

    Parameters
    ----------
    settings:
        ``study`` holds candidates and axes, ``simulation`` what all scans share, ``comparison`` the limits of a
        candidate; the other sections apply to all candidates.
    resume:
        Keep finished results with the same inputs, and continue. Cells that were removed from the study stay too.

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    Cancelled
        If the monitor was cancelled; finished results stay for ``resume``.
    """
    config, simulation, limits = settings.study, settings.simulation, settings.comparison
    if config is None:
        raise UsageError("There is no section 'study'.", "Write 'study:' with 'legs' below it.")
    check_simulation(simulation)
    _check(config, settings)
    version = metadata.version("ptychopinn")
    planner = Planner(discover(), version, simulation.N, settings)
    plans = {
        cell: planner.plan(config.legs, gridsize=cell.point.gridsize, repeat=cell.repeat) for cell in cells_of(config)
    }
    how = _how_to_run(config, limits, [plan for candidates in plans.values() for plan in candidates])
    with output_folder(output, _STUDY, overwrite=overwrite, resume=resume, keep=KEEP_PATTERNS) as folder:
        for name in (_LEGS, _SCANS, _PICTURES):
            (folder / name).mkdir(exist_ok=True)
        write_json(
            folder / MANIFEST,
            {
                "version": version,
                "study": config.model_dump(mode="json"),
                "simulation": simulation.model_dump(mode="json"),
                "settings": {candidate.name: candidate.as_dict() for candidate in next(iter(plans.values()))},
            },
        )
        # All scans are simulated first, so that nothing else works while candidates run.
        runs: dict[str, CandidateRun] = {}
        names: dict[tuple[Cell, str], str] = {}  # (cell, candidate) to run; cells that are alike share one
        for cell, candidates in plans.items():
            scans = scans_of(cell, simulation, folder / _SCANS, monitor)
            for plan in candidates:
                used = scans if plan.is_network else {"test": scans["test"]}
                content = {"plan": plan.as_dict(), "scans": {name: source.digest for name, source in used.items()}}
                names[cell, plan.name] = name = f"{plan.name}-{digest_of(content)[:16]}"
                runs.setdefault(name, CandidateRun((folder / _LEGS / name).absolute(), plan, used))

        def report_cells(ended: Collection[str]) -> None:
            open_cells = {cell for (cell, _), name in names.items() if name not in ended}
            monitor.report("cells", len(plans) - len(open_cells), len(plans))

        run_candidates(runs, how, monitor, report_cells)
        outcomes = [replace(runs[name].outcome(), cell=cell) for (cell, _), name in names.items()]
        failed = {f"{one.name} at {one.cell.name}": one.failure for one in outcomes if one.cell and one.failure}
        rows = make_rows(outcomes, ["test"], study_figures())
        medians = medians_of(rows, config.percentiles)
        files = {"table": write_table(folder / METRICS, rows), "medians": write_medians(folder / MEDIANS, medians)}
        homes = {key: runs[name].folder for key, name in names.items()}
        outcome = StudyOutcome(medians, homes, failed, sum(one.side_by_side for one in outcomes))
        report = attempt(
            "The report",
            lambda: write_study_report(folder / REPORT, folder / _PICTURES, config, simulation, outcome),
        )
        if report is not None:
            files["report"] = report
        return StudyResult(folder, tuple(rows), files, failed, tuple(medians))


def _how_to_run(config: StudyConfig, limits: ComparisonConfig, plans: Sequence[CandidatePlan]) -> CandidateJobs:
    """One candidate at a time on the whole machine, unless the study asks for more."""
    count = config.workers or 1
    memory_mb = limits.memory_mb or (default_memory_mb(count) if config.scheduler is None else None)
    if config.scheduler is None and count == 1:
        return CandidateJobs(LocalWorkers(1), memory_mb, limits.leg_seconds, config.retries)
    options = [plan.solver if plan.settings is None else plan.settings.execution for plan in plans]
    workers = choose_workers(config, {getattr(one, "accelerator", Accelerator.CPU) for one in options})
    return CandidateJobs(workers, memory_mb, limits.leg_seconds, config.retries, side_by_side=True)


def _check(config: StudyConfig, settings: AllSettings[Any, Any]) -> None:
    """Refuse unknown metrics, and settings that the study sets itself or that have no effect in it."""
    known = [" ".join(figure) for figure in study_figures()]
    if strange := [name for name in config.metrics if name not in known]:
        raise ConfigError(f"The metric '{strange[0]}' is not known.", f"Use some of {', '.join(known)}.")
    given = settings.given()
    named = [f"model.{name}" for name in (*NOT_SHARED, "gridsize") if name in given.get("model", {})]
    named += [f"comparison.{name}" for name in given.get("comparison", {}) if name not in _LIMITS]
    named += [f"reading.{name}" for name in given.get("reading", {})]  # its scans are simulated
    if named:
        raise UsageError(
            f"{', '.join(named)} cannot be set in a study.",
            "Leave it out; candidates, axes and simulation determine it.",
        )
    if config.gridsize != (None,) and (
        twice := [candidate.name for candidate in config.legs if "gridsize" in candidate.model]
    ):
        raise ConfigError(
            f"gridsize is an axis of the study, and the candidate {twice[0]} sets it.", "Leave one of them out."
        )
