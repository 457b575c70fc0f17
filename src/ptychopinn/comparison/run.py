"""Compare any number of reconstructors on the same scans, each in its own process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.atomic import write_json
from ptychopinn.comparison.candidate_run import FORMAT, CandidateJobs, CandidateRun, default_memory_mb, run_candidates
from ptychopinn.comparison.candidates import CandidatePlan, Planner
from ptychopinn.comparison.files import read_arrays
from ptychopinn.comparison.report import write_comparison_report
from ptychopinn.comparison.scans import ScanSource, write_central
from ptychopinn.comparison.table import CandidateOutcome, Row, comparison_figures, make_rows, summarise, write_table
from ptychopinn.config.reading import ReadOptions
from ptychopinn.config.run import AllSettings
from ptychopinn.config.workers import WorkerOptions
from ptychopinn.errors import DataError, UsageError
from ptychopinn.jobs import LocalWorkers
from ptychopinn.metrics import MIN_SIDE_PX, ScanBox, align
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.plugins import ALIASES, discover
from ptychopinn.report import attempt
from ptychopinn.typing import AnyArray, ComplexArray, StrPath
from ptychopinn.workflows.folders import CHECKPOINTS, FolderKind, output_folder

MANIFEST, METRICS, SUMMARY, REPORT = "comparison.json", "comparison_metrics.csv", "metrics_summary.json", "report.html"
VERIFICATION = "verification_report.json"
_LEGS, _PICTURES, _SELECTION = "legs", "pictures", "test-selection.npz"
KEEP_PATTERNS = (f"{_LEGS}/*/scores-*.json", f"{_LEGS}/*/run-*.json", f"{_LEGS}/*/train/{CHECKPOINTS}")
_COMPARISON = FolderKind(
    "comparison",
    frozenset({MANIFEST, METRICS, SUMMARY, REPORT, VERIFICATION, _LEGS, _PICTURES, _SELECTION}),
    keep=KEEP_PATTERNS,
    marker=MANIFEST,
    creates_on_resume=True,
)


@dataclass(frozen=True)
class ComparisonResult:
    """Results of a comparison."""

    folder: Path
    rows: tuple[Row, ...]
    files: Mapping[str, Path]  # written files by kind
    failed: Mapping[str, str]  # candidate to the reason of its failure


def compare_run(  # noqa: PLR0913
    train_path: StrPath,
    test_path: StrPath,
    output: StrPath,
    settings: AllSettings[Any, Any],
    *,
    train_reference: StrPath | None = None,
    test_reference: StrPath | None = None,
    resume: bool = False,
    overwrite: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> ComparisonResult:
    """Compare reconstructors on a pair of scans.

    Networks train on one scan and reconstruct both; solvers reconstruct both. A candidate that fails keeps its rows in
    the table, and the others go on.

    Parameters
    ----------
    settings:
        ``comparison`` holds candidates, limits and baseline; the other sections apply to all candidates.
    train_reference, test_reference:
        NPZ or product with the trusted object of a scan; None: the scan's own, unless it is a placeholder.
    resume:
        Keep finished candidates with the same inputs, and run the others.

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    Cancelled
        If the monitor was cancelled; finished results stay for ``resume``.
    """
    config, reading = settings.comparison, settings.reading
    version = metadata.version("ptychopinn")
    train = ScanSource.of(train_path, train_reference, reading)
    test = ScanSource.of(test_path, test_reference, reading)
    if train.facts["N"] != test.facts["N"]:
        raise DataError(
            f"The training patterns are {train.facts['N']} pixels wide, the test patterns {test.facts['N']}.",
            "Crop or pad one of the scans.",
        )
    plans = Planner(discover(), version, train.facts["N"], settings).plan(config.legs)
    baseline = _baseline(config.baseline, plans)
    with output_folder(output, _COMPARISON, overwrite=overwrite, resume=resume, keep=KEEP_PATTERNS) as folder:
        if config.n_test_groups is not None:
            count = config.n_test_groups * ((settings.model.gridsize or 1) ** 2)
            if write_central(test_path, count, folder / _SELECTION, reading):
                name = f"{count} central patterns of {test.path.name}"
                as_it_says = ReadOptions()
                test = ScanSource.of(folder / _SELECTION, test_reference, as_it_says, name)
        scans = {"train": train, "test": test}
        memory_mb = config.memory_mb or default_memory_mb()
        manifest = {
            "format": FORMAT,
            "version": version,
            "baseline": baseline,
            "config": {**config.model_dump(mode="json", exclude={"legs"}), "memory_mb": memory_mb},
            "scans": {
                name: {
                    "path": str(source.path),
                    "reference": None if source.reference is None else str(source.reference),
                    "digest": source.digest + source.reference_digest,
                    "facts": source.facts,
                }
                for name, source in scans.items()
            },
            "legs": [plan.as_dict() for plan in plans],
        }
        write_json(folder / MANIFEST, manifest)
        split = ("test",) if config.split_frc else ()
        runs = {plan.name: CandidateRun(folder / _LEGS / plan.name, plan, scans, split) for plan in plans}
        one_at_a_time = CandidateJobs(LocalWorkers(1), memory_mb, config.leg_seconds, WorkerOptions().retries)
        run_candidates(runs, one_at_a_time, monitor, lambda done: monitor.report("candidates", len(done), len(runs)))
        return finish(folder, manifest, [run.outcome() for run in runs.values()], monitor)


def finish(
    folder: Path, manifest: Mapping[str, Any], outcomes: Sequence[CandidateOutcome], monitor: Monitor = NULL_MONITOR
) -> ComparisonResult:
    """Write table, summary, pictures and report from the results of the candidates."""
    baseline, scans = manifest["baseline"], list(manifest["scans"])
    rows = make_rows(
        outcomes, scans, comparison_figures(), baseline, _distances(folder / _LEGS, outcomes, scans, baseline)
    )
    files = {"table": write_table(folder / METRICS, rows)}
    summary = {**summarise(rows, baseline), "scans": {name: s["facts"] for name, s in manifest["scans"].items()}}
    files["summary"] = write_json(folder / SUMMARY, summary)
    monitor.report("report", 0, 1)
    (folder / _PICTURES).mkdir(exist_ok=True)
    failed = {outcome.name: outcome.failure for outcome in outcomes if outcome.failure}
    report = attempt(
        "The report",
        lambda: write_comparison_report(folder / REPORT, folder / _PICTURES, manifest, summary, rows, folder / _LEGS),
    )
    if report is not None:
        files["report"] = report
    monitor.report("report", 1, 1)
    return ComparisonResult(folder, tuple(rows), files, failed)


def _baseline(asked: str | None, plans: Sequence[CandidatePlan]) -> str:
    names = [plan.name for plan in plans]
    if asked is None or asked in names:
        return asked or names[0]
    first, dash, rest = asked.partition("-")
    if (name := ALIASES.get(first, first) + dash + rest) not in names:
        raise UsageError(
            f"The baseline '{asked}' is none of the candidates {', '.join(names)}.", "Name one of the candidates."
        )
    return name


def _distances(
    folder: Path, outcomes: Sequence[CandidateOutcome], scans: Sequence[str], baseline: str
) -> dict[tuple[str, str], float | str]:
    """Distance of each candidate's object from the baseline's."""
    found: dict[tuple[str, str], float | str] = {}
    for scan in scans:
        base = read_arrays(folder / baseline, scan)
        for outcome in outcomes:
            if scan in outcome.scans:
                found[outcome.name, scan] = _distance(read_arrays(folder / outcome.name, scan), base)
    return found


def _distance(arrays: Mapping[str, AnyArray], base: Mapping[str, AnyArray]) -> float | str:
    if "reconstruction" not in base or "reconstruction" not in arrays:
        return "the baseline has no object" if "reconstruction" in arrays else "the scan has no box"
    a: ComplexArray = arrays["reconstruction"].astype(np.complex128)
    b: ComplexArray = base["reconstruction"].astype(np.complex128)
    if "reference" not in base:  # without a reference they are not aligned yet
        if min(b.shape) < MIN_SIDE_PX:
            return "the scan box is too small"
        pair = align(b, a, ScanBox(0, b.shape[0], 0, b.shape[1]))
        a, b = pair.reconstruction, pair.reference
    norm = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / norm if norm > 0 else "the baseline is zero"
