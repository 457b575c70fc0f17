"""Whole studies: specs/15-study.md."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from toy_distribution import install_plugins

from ptychopinn.cli import main
from ptychopinn.comparison import StudyResult, comparison_settings, study_run
from ptychopinn.comparison.cells import Cell, Point
from ptychopinn.comparison.table import Row, Status, medians_of
from ptychopinn.config.files import read_config_file
from ptychopinn.config.run import AllSettings
from ptychopinn.config.study import StudyConfig
from ptychopinn.errors import Cancelled, ConfigError, UsageError
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.workflows.lock import locked

ROOT = Path(__file__).resolve().parents[2]


def of(
    *candidates: object, photons: tuple[float, ...] = (1e3,), study: dict[str, Any] | None = None, **sections: Any
) -> Any:
    """The settings of a tiny study."""
    axes = {"legs": candidates, "photons": photons, **(study or {})}
    return comparison_settings(study=axes, simulation={"N": 32, "rows": 7, "cols": 7}, **sections)


def test_medians() -> None:
    """[STUDY-004] Over seeds and repeats; a failed cell counts as failed."""
    point = Point(1e3, 0.5, None, None)
    rows = [
        Row("a", "test", "phase", "ssim", value, Status.OK, cell=Cell(point, seed, 0))
        for seed, value in enumerate((1.0, 2, 4))
    ]
    rows.append(Row("a", "test", "phase", "ssim", None, Status.FAILED, "boom", Cell(point, 3, 0)))
    rows.append(Row("b", "test", "phase", "ssim", None, Status.FAILED, "boom", Cell(point, 3, 0)))
    a, b = medians_of(rows, (0, 100))
    assert (a.candidate, a.median, a.low, a.high, a.count, a.failed) == ("a", 2, 1, 4, 3, 1)
    assert (b.median, b.count, b.failed) == (None, 0, 1)


@pytest.mark.slow
def test_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[STUDY-001] [STUDY-003] [STUDY-004] [STUDY-005] Networks and solvers; what is done is kept."""
    install_plugins(tmp_path, monkeypatch)
    shared: dict[str, Any] = {
        "train": {"nepochs": 1, "probe_refinement": 0},
        "infer": {"refine": 0},
        "solver": {"passes": 5},
    }
    study: dict[str, Any] = {"gridsize": (1, 2), "retries": 0}
    settings = of("numpy-pinn", "epie", "dies", photons=(1e3, 1e5), study=study, **shared)
    result = study_run(settings, tmp_path / "out")
    with (tmp_path / "out" / "study_metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "nrmse"]
    assert len(rows) == 3 * 4
    axes = ["photons", "overlap", "train_patterns", "gridsize", "seed", "repeat"]
    assert list(rows[0]) == ["leg", *axes, "scan", "quantity", "metric", "value", "status", "message"]
    assert {row["status"] for row in rows if row["leg"] == "dies"} == {"failed"}
    assert all(row["value"] for row in rows if row["leg"] != "dies")
    assert len(result.failed) == 4
    candidates = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "out" / "legs").iterdir())
    assert (
        candidates == ["dies"] * 2 + ["epie"] * 2 + ["numpy-pinn"] * 4
    )  # a solver has no gridsize: one result for both
    epie = {m.point.photons: m.median for m in result.medians if m.candidate == "epie" and m.metric == "nrmse"}
    assert epie[1e5] < epie[1e3]
    assert {path.name for path in (tmp_path / "out" / "pictures").iterdir()} >= {"curves.png"}
    report = (tmp_path / "out" / "report.html").read_text()
    assert all(words in report for words in ("dies at photons", "numpy-pinn, alone", "epie, 5 passes"))  # [COMP-036]

    def stamps() -> dict[str, int]:
        return {
            p.name: (p / "leg.json").stat().st_mtime_ns
            for p in (tmp_path / "out" / "legs").iterdir()
            if not p.name.startswith("dies")
        }

    before = stamps()
    fewer = of("numpy-pinn", "epie", photons=(1e3, 1e5), study={"gridsize": (1,)}, **shared)
    again = study_run(fewer, tmp_path / "out", resume=True)
    assert stamps() == before
    assert not again.failed


def test_one_study_at_a_time(tmp_path: Path) -> None:
    """[HARD-030] [HARD-013] And what another one finds there stays until it has something."""
    pytest.importorskip("fcntl", reason="without it files have no locks here")
    (tmp_path / "study.json").write_text("old")
    with locked(tmp_path), pytest.raises(UsageError, match="in use by process"):
        study_run(of("epie"), tmp_path, overwrite=True)
    monitor = Monitor()
    monitor.cancel()
    with pytest.raises(Cancelled):
        study_run(of("epie"), tmp_path, overwrite=True, monitor=monitor)
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.slow
def test_repeats_are_runs_of_their_own(tmp_path: Path) -> None:
    """[STUDY-001] With another seed of the reconstructor on the same scans."""
    result = study_run(of("epie", study={"repeats": 2}, solver={"passes": 2}), tmp_path / "out")
    (nrmse,) = [m for m in result.medians if m.metric == "nrmse"]
    assert nrmse.count == 2
    assert nrmse.low is not None
    assert nrmse.high is not None
    assert nrmse.low < nrmse.high
    assert len(list((tmp_path / "out" / "scans").iterdir())) == 2


@pytest.mark.slow
def test_candidates_side_by_side_have_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[STUDY-007] The report says that their durations are no measure; one that is killed is tried again."""
    install_plugins(tmp_path, monkeypatch)
    events: list[Progress] = []
    settings = {"seeds": (0, 1), "retries": 1}
    alone, beside = (
        study_run(
            of("epie", *more, study=settings | workers, solver={"passes": 2}),
            tmp_path / name,
            monitor=Monitor(events.append),
        )
        for name, more, workers in (("alone", (), {}), ("beside", ("dies",), {"workers": 2}))
    )
    scores = [
        [(row.cell, row.metric, row.value) for row in found.rows if row.candidate == "epie" and row.quantity != "run"]
        for found in (alone, beside)
    ]
    assert scores[0] == scores[1]
    note = "2 results are of candidates that ran beside others"
    assert note not in (alone.folder / "report.html").read_text()
    assert note.replace("2", "4") in (beside.folder / "report.html").read_text()
    assert sum("tried again (1 of 1)" in line for line in caplog.messages) == 2
    assert [(event.done, event.total) for event in events if event.stage == "cells"] == [
        *((done, 2) for done in range(3)),
        *((done, 2) for done in (0, 0, 0, 1, 2)),
    ]


def test_refusals(tmp_path: Path) -> None:
    """[STUDY-001] Before any work."""
    with pytest.raises(ConfigError, match="'phase beauty' is not known"):
        study_run(of("epie", study={"metrics": ("phase beauty",)}), tmp_path / "out")
    wide = {"name": "torch-pinn", "model": {"gridsize": 2}}
    with pytest.raises(ConfigError, match="gridsize is an axis of the study, and the candidate torch-pinn sets it"):
        study_run(of(wide, study={"gridsize": (1, 2)}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study: {legs: [epie]}\nmodel: {gridsize: 2}\n", "model.gridsize cannot be set in a study"),
        ("study: {legs: [epie]}\nreading: {nphotons: 9}\n", "reading.nphotons cannot be set in a study"),
        ("study: {legs: [epie]}\ncomparison: {baseline: epie}\n", "comparison.baseline cannot be set"),
        ("simulation: {N: 32}\n", "There is no section 'study'"),
        ("study: {legs: [epie], photon: [1]}\n", "did you mean photons"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    """[STUDY-006]"""
    (tmp_path / "s.yaml").write_text(text)
    assert main(["study", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """[STUDY-006] Sections of the file go where they belong."""
    noted = {}

    def run(settings: AllSettings, output: str, **kwargs: object) -> object:
        noted.update(kwargs, settings=settings, output=output)
        return StudyResult(Path(output), (), {"table": Path("t.csv")}, {}, ())

    monkeypatch.setattr("ptychopinn.comparison.study_run", run)
    text = (
        "study: {legs: [epie], photons: [1e3, 1e6]}\nsimulation: {rows: 4}\ntrain: {nepochs: 2}\n"
        "solver: {passes: 3}\ncomparison: {memory_mb: 900}\n"
    )
    (tmp_path / "s.yaml").write_text(text)
    assert main(["study", str(tmp_path / "s.yaml"), "-o", "out", "--resume"]) == 0
    given = noted["settings"].given()
    assert noted["settings"].study == StudyConfig(legs=("epie",), photons=(1e3, 1e6))
    assert (given["simulation"], given["train"]) == ({"rows": 4}, {"nepochs": 2})
    assert (given["solver"], given["comparison"]) == ({"passes": 3}, {"memory_mb": 900})
    assert noted["resume"]
    assert "t.csv" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_valid(path: Path) -> None:
    """[STUDY-006]"""
    given = read_config_file(path)
    assert comparison_settings(**given).study is not None
