"""Whole comparisons, each candidate in processes of its own: specs/14-comparison.md."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptychopinn.comparison import ComparisonResult, Row, Status, compare_run, verify_comparison
from ptychopinn.comparison.scans import central_indices
from ptychopinn.config import SimulationConfig
from ptychopinn.config.run import AllSettings
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import Cancelled, DataError, UsageError
from ptychopinn.jobs.memory import descendants
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.product import read_product
from ptychopinn.report import bare_phase
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows.lock import locked

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("comparison")]

SCANS = ("test", "train")


def of(*candidates: object, comparison: dict[str, Any] | None = None, **sections: Any) -> AllSettings:
    """The settings of a comparison, without halves unless they are asked for."""
    return AllSettings(comparison={"legs": candidates, "split_frc": False, **(comparison or {})}, **sections)


def values(rows: tuple[Row, ...], candidate: str, scan: str = "test") -> dict[tuple[str, str], float | None]:
    return {(row.quantity, row.metric): row.value for row in rows if row.candidate == candidate and row.scan == scan}


@pytest.fixture(autouse=True)
def _small_pictures(finished: ComparisonResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finished comparison has its pictures; those of the others would take a third of the time."""
    png = bare_phase(np.ones((4, 4), np.complex64), np.ones((4, 4), np.complex64))
    for name in ("candidates_picture", "frc_picture", "bare_phase"):
        monkeypatch.setattr(f"ptychopinn.comparison.report.{name}", lambda *_args, **_kwargs: png)


@pytest.fixture
def copied(finished: ComparisonResult, tmp_path: Path, plugins: None) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "out"))


def test_a_failed_leg_does_not_lose_the_others(finished: ComparisonResult) -> None:
    """[COMP-003] [COMP-030] Out of memory, or refused by the backend: it keeps its rows and says why."""
    assert set(finished.failed) == {"hog", "numpy-supervised"}
    assert "out of memory" in finished.failed["hog"]
    assert "supervised" in finished.failed["numpy-supervised"]
    status = {(row.candidate, row.scan, row.status) for row in finished.rows if row.metric == "nrmse"}
    ok = {(candidate, scan, Status.OK) for candidate in ("numpy-pinn", "epie", "flat") for scan in ("train", "test")}
    failed = {("hog", "test"), ("numpy-supervised", "train"), ("numpy-supervised", "test")}
    # what a candidate had finished before it failed stays
    assert status == ok | {("hog", "train", Status.OK)} | {(*where, Status.FAILED) for where in failed}


def test_the_figures(finished: ComparisonResult, pair: tuple[Path, Path]) -> None:
    """[COMP-031] [COMP-032] Scores, statistics and what it took."""
    epie, flat, network = (values(finished.rows, candidate) for candidate in ("epie", "flat", "numpy-pinn"))
    assert epie["object", "nrmse"] < 0.5 * flat["object", "nrmse"]
    assert epie["object", "residual"] < flat["object", "residual"]
    assert (flat["amp", "mean"], flat["phase", "nonzero_share"], flat["object", "flatness"]) == (1, 0, 0)
    assert epie["amp", "max"] > 1
    assert epie["phase", "nonzero_share"] == 1
    assert epie["amp", "frc50_split"] is not None
    assert network["run", "training_seconds"] > 0
    assert epie["run", "training_seconds"] == 0
    assert epie["run", "patterns"] == 64
    assert (network["run", "passes"], epie["run", "passes"]) == (2, 5)  # [COMP-036]
    assert epie["run", "peak_anonymous_mib"] > 20
    assert epie["object", "nrmse_to_baseline"] == 0
    assert flat["object", "nrmse_minus_baseline"] == pytest.approx(flat["object", "nrmse"] - epie["object", "nrmse"])


def test_what_is_left_behind(finished: ComparisonResult, pair: tuple[Path, Path]) -> None:
    """[COMP-010] [COMP-034] Table, summary, aligned arrays, pictures, products, one report, logs."""
    folder = finished.folder
    assert "printed by a solver" in (folder / "legs" / "flat" / "job.log").read_text()
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert {"test-amplitude.png", "test-phase.png", "test-frc.png", "train-phase.png", "test-frc-odd-even.png"} <= names
    with h5py.File(folder / "legs" / "epie" / "aligned-test.h5") as file:
        reference, found = file["reference"][...], file["reconstruction"][...]
        assert reference.shape == found.shape
        assert found.dtype == np.complex64
        y0, y1, x0, x1 = file.attrs["box"].astype(int)
        assert file["frc/amp"].shape[0] == 2
    truth = read_scan(pair[1]).object_guess
    assert truth is not None
    np.testing.assert_array_equal(reference, truth[y0:y1, x0:x1])
    assert read_product(folder / "legs" / "epie" / "test" / "reconstruction.h5").object.shape == truth.shape
    summary = json.loads((folder / "metrics_summary.json").read_text())
    assert summary["baseline"] == "epie"
    assert summary["best"]["test"]["object nrmse"] == "numpy-pinn"  # whose passes start nearer than the five of epie


def test_the_report_says_what_was_compared(finished: ComparisonResult) -> None:
    """[COMP-035] [COMP-036] On what, with which result, after how many passes, and what went wrong."""
    text = (finished.folder / "report.html").read_text()
    for words in (
        "test.npz",
        "64 patterns of 32 x 32",
        "hog failed: The job is out of memory",
        "phase SSIM",
        "numpy-pinn",
        ">2 passes<",
        ">5 passes<",
    ):
        assert words in text
    assert ">alone<" not in text
    assert text.count('class="slider"') == 2  # [REP-013] for each scan, the best phase on the reference
    assert text.count("data:image/png") == len(list((finished.folder / "pictures").iterdir())) + 2 * 2


def test_verify_passes(copied: Path) -> None:
    """[COMP-040] A finished comparison, failed candidates and all."""
    report = verify_comparison(copied)
    assert report["passed"], report
    assert json.loads((copied / "verification_report.json").read_text()) == report


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (lambda f: (f / "comparison_metrics.csv").write_text("leg,scan\n"), "columns"),
        (lambda f: change(f / "comparison_metrics.csv", "epie,test,amp,mae,", "epie,test,amp,other,"), "once"),
        (lambda f: change(f / "comparison_metrics.csv", "ok,\n", "failed,\n"), "reason"),
        (lambda f: change(f / "comparison_metrics.csv", "epie,test,phase,ssim,0", "epie,test,phase,ssim,1"), "arrays"),
        (lambda f: (f / "legs/epie/aligned-test.h5").write_bytes(b"no"), "arrays"),
        (lambda f: change(f / "metrics_summary.json", '"nrmse": 0', '"nrmse": 1'), "summary"),
        (lambda f: change(f / "comparison.json", '"digest": "', '"digest": "0'), "scans"),
        (lambda f: change(f / "report.html", "</body>", '<img src="http://somewhere/a.png"></body>'), "outside"),
    ],
)
def test_verify_finds(copied: Path, spoil, check: str) -> None:
    """[COMP-040] Whatever does not fit together."""
    spoil(copied)
    report = verify_comparison(copied)
    assert not report["passed"]
    assert any(check in found["name"] for found in report["checks"] if not found["passed"])


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_resuming_keeps_what_is_done(copied: Path, pair: tuple[Path, Path]) -> None:
    """[COMP-020] By content: the candidate that is whole is not run again, one with other settings is."""
    before = {
        candidate: (copied / "legs" / candidate / "leg.json").stat().st_mtime_ns for candidate in ("epie", "flat")
    }
    settings = of("epie", "flat", train={"nepochs": 2}, solver={"passes": 2})
    compare_run(*pair, copied, settings, resume=True)
    now = {candidate: (copied / "legs" / candidate / "leg.json").stat().st_mtime_ns for candidate in ("epie", "flat")}
    assert now["epie"] > before["epie"]
    assert now["flat"] > before["flat"]  # its odd and even patterns are not asked for any more
    result = compare_run(*pair, copied, settings, resume=True)
    assert {
        candidate: (copied / "legs" / candidate / "leg.json").stat().st_mtime_ns for candidate in ("epie", "flat")
    } == now
    assert not result.failed


def test_an_interrupted_leg_goes_on(plugins: None, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """[COMP-012] [COMP-020] A scan that was done before stays done."""
    monitor = Monitor(lambda event: monitor.cancel() if is_second(event) else None)

    def is_second(event: Progress) -> bool:
        return event.stage.startswith("epie: test")

    with pytest.raises(Cancelled, match="--resume"):
        compare_run(*pair, tmp_path / "out", of("epie"), monitor=monitor)
    train = tmp_path / "out" / "legs" / "epie" / "scores-train.json"
    done = train.stat().st_mtime_ns
    result = compare_run(*pair, tmp_path / "out", of("epie"), resume=True)
    assert not result.failed
    assert train.stat().st_mtime_ns == done


def test_a_leg_ends_with_the_comparison(plugins: None, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """[COMP-012] However that ends: nothing is left running."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from ptychopinn.comparison import compare_run, comparison_settings; "
        f"settings = comparison_settings(comparison={{'legs': ['sleeps']}}); "
        f"compare_run({str(pair[0])!r}, {str(pair[1])!r}, {str(tmp_path / 'out')!r}, settings)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 60
        while len(tree := descendants(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert len(tree) == 2
    status = Path(f"/proc/{tree[1]}/status")
    while status.exists() and "zombie" not in status.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not status.exists() or "zombie" in status.read_text()


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        ("misshapen", r"object of \(3, 4\)"),
        ("dies", "killed by the system"),
        ("sleeps", "out of time: 3 s"),
    ],
)
def test_ways_to_fail(plugins: None, pair: tuple[Path, Path], tmp_path: Path, candidate: str, reason: str) -> None:
    """[COMP-003] A candidate that fails alone still makes a table and a report."""
    settings = of(candidate, comparison={"leg_seconds": 3 if candidate == "sleeps" else None})
    result = compare_run(*pair, tmp_path / "out", settings)
    assert {row.status for row in result.rows} == {Status.FAILED}
    assert re.search(reason, result.failed[candidate])
    assert verify_comparison(tmp_path / "out")["passed"]


def test_few_test_groups(plugins: None, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """[COMP-004] n_test_groups groups of gridsize^2 patterns, in the middle of the scan."""
    settings = of("flat", model={"gridsize": 2}, comparison={"n_test_groups": 9})
    result = compare_run(*pair, tmp_path / "out", settings)
    assert values(result.rows, "flat")["run", "patterns"] == 36
    assert values(result.rows, "flat", "train")["run", "patterns"] == 64
    data = read_scan(pair[1])
    chosen = data.positions[central_indices(data, 36)]
    assert (np.ptp(chosen, axis=0) < 0.85 * np.ptp(data.positions, axis=0)).all()


def test_few_test_groups_of_counts(plugins: None, tmp_path: Path) -> None:
    """[COMP-004] The selection is read as what it is, whatever was said of the file."""
    data = simulate_scan(SimulationConfig(N=32, rows=8, cols=8, seed=3))
    path = tmp_path / "counts.npz"
    counts = np.asarray(data.counts(slice(None)), np.float64)
    scan = {"diff3d": counts, "probeGuess": data.probe, "objectGuess": data.object_guess}
    np.savez(path, **scan, xcoords=data.positions[:, 1], ycoords=data.positions[:, 0])
    settings = of("flat", reading={"measurement": "counts"}, comparison={"n_test_groups": 36})
    result = compare_run(path, path, tmp_path / "out", settings)
    assert not result.failed
    few, whole = (read_product(result.folder / "legs" / "flat" / name / "reconstruction.h5") for name in SCANS)
    assert few.photon_count == pytest.approx(whole.photon_count, rel=0.3)
    assert whole.photon_count == pytest.approx(counts.sum(axis=(1, 2)).mean(), rel=0.2)


def test_another_reference_trains_nothing_anew(
    plugins: None, pair: tuple[Path, Path], copied: Path, tmp_path: Path
) -> None:
    """[COMP-020] Scores and aligned arrays are made again, runs stay."""
    candidates = copied / "legs"
    runs = ("epie/test/reconstruction.h5", "numpy-pinn/train/wts.h5.zip", "numpy-pinn/test/reconstruction.h5")
    before = {name: (candidates / name).stat().st_mtime_ns for name in runs}
    training = {
        candidate: (candidates / candidate / "scores-train.json").stat().st_mtime_ns
        for candidate in ("epie", "numpy-pinn")
    }
    truth = read_scan(pair[1]).object_guess
    assert truth is not None
    np.savez(tmp_path / "trusted.npz", object=truth + 0.5 * np.random.default_rng(0).standard_normal(truth.shape))
    result = compare_run(
        *pair,
        copied,
        of("epie", "numpy-pinn", **{"train": {"nepochs": 2}, "solver": {"passes": 5}}, comparison={"split_frc": True}),
        test_reference=tmp_path / "trusted.npz",
        resume=True,
    )
    assert not result.failed
    assert {name: (candidates / name).stat().st_mtime_ns for name in runs} == before
    assert {
        candidate: (candidates / candidate / "scores-train.json").stat().st_mtime_ns for candidate in training
    } == training
    epie = values(result.rows, "epie")
    assert epie["object", "nrmse"] > 0.3
    assert epie["run", "reconstruction_seconds"] > 0
    assert verify_comparison(copied)["passed"]


def bad_reference(folder: Path, kind: str, shape: tuple[int, ...]) -> Path:
    path = folder / f"{kind}.npz"
    y, x = np.indices(shape)
    obj = np.exp(0.1j * y) + 0.1 * x
    if kind == "small":
        obj = obj[:40, :40]
    if kind != "missing":
        np.savez(path, **({"something": obj} if kind == "without" else {"object": obj}))
    return path


@pytest.mark.parametrize(
    ("kind", "said"), [("missing", "is not there"), ("without", "has no object"), ("small", "40 x 40 pixels")]
)
def test_a_bad_reference_is_refused_before_any_work(
    plugins: None, pair: tuple[Path, Path], tmp_path: Path, kind: str, said: str
) -> None:
    """[COMP-002]"""
    shape = read_scan(pair[1]).object_guess.shape
    for which in ("train_reference", "test_reference"):
        with pytest.raises(DataError, match=said):
            compare_run(*pair, tmp_path / "out", of("epie"), **{which: bad_reference(tmp_path, kind, shape)})
    assert not (tmp_path / "out").exists()


def test_one_comparison_at_a_time(plugins: None, pair: tuple[Path, Path], copied: Path) -> None:
    """[HARD-030]"""
    pytest.importorskip("fcntl", reason="without it files have no locks here")
    with locked(copied), pytest.raises(UsageError, match="in use by process"):
        compare_run(*pair, copied, of("epie"), overwrite=True)


def test_a_comparison_that_comes_to_nothing_leaves_the_earlier_one(
    pair: tuple[Path, Path], copied: Path, plugins: None
) -> None:
    """[HARD-013] Cancelled before a candidate has anything."""
    monitor = Monitor()
    monitor.cancel()
    before = sorted(str(path.relative_to(copied)) for path in copied.rglob("*"))
    with pytest.raises(Cancelled):
        compare_run(*pair, copied, of("epie"), overwrite=True, monitor=monitor)
    assert sorted(str(path.relative_to(copied)) for path in copied.rglob("*")) == before
    assert verify_comparison(copied)["passed"]


def test_without_a_reference(plugins: None, tmp_path: Path) -> None:
    """[COMP-005] [COMP-031] What needs one is skipped with the reason; the rest is there."""
    data = simulate_scan(SimulationConfig(N=32, rows=8, cols=8, seed=3))
    path, trusted = tmp_path / "s.npz", tmp_path / "trusted.npz"
    assert data.object_guess is not None
    np.savez(trusted, object=data.object_guess)
    write_scan(path, replace(data, object_guess=np.ones_like(data.object_guess)))
    settings = of("epie", "rpie", solver={"passes": 3}, comparison={"split_frc": True})
    result = compare_run(path, path, tmp_path / "out", settings)
    ssim = [row for row in result.rows if row.metric == "ssim"]
    assert {(row.status, row.message) for row in ssim} == {(Status.SKIPPED, "no reference was given")}
    rpie = values(result.rows, "rpie")
    assert rpie["phase", "frc50_split"] > 0
    assert 0 < rpie["object", "nrmse_to_baseline"] < 1
    assert verify_comparison(tmp_path / "out")["passed"]
    told = compare_run(path, path, tmp_path / "told", of("epie"), test_reference=trusted)
    assert values(told.rows, "epie")["object", "nrmse"] is not None
    assert values(told.rows, "epie", "train")["object", "nrmse"] is None


def test_refusals(plugins: None, pair: tuple[Path, Path], tmp_path: Path, finished: ComparisonResult) -> None:
    """[COMP-002] Before any work."""
    with pytest.raises(UsageError, match="baseline 'rpie' is none of the candidates epie"):
        compare_run(*pair, tmp_path / "a", of("epie", comparison={"baseline": "rpie"}))
    with pytest.raises(UsageError, match="is there and not empty"):
        compare_run(*pair, finished.folder, of("epie"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="no comparison to resume"):
        compare_run(*pair, tmp_path / "other", of("epie"), resume=True)
    wide = tmp_path / "wide.npz"
    write_scan(wide, simulate_scan(SimulationConfig(N=64, rows=2, cols=2)))
    with pytest.raises(DataError, match="32 pixels wide, the test patterns 64"):
        compare_run(pair[0], wide, tmp_path / "a", of("epie"))
    assert not (tmp_path / "a").exists()


def test_legs_with_settings_of_their_own_are_compared(plugins: None, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """[COMP-006] Two of one solver, under names of their own; one of them is the baseline."""
    candidates = [{"name": "pytorch-short", "backend": "epie", "solver": {"passes": 1}}, "epie"]
    settings = of(*candidates, solver={"passes": 4}, comparison={"baseline": "pytorch-short"})
    result = compare_run(*pair, tmp_path / "out", settings)
    short, shared = (values(result.rows, candidate)["object", "residual"] for candidate in ("pytorch-short", "epie"))
    assert short is not None
    assert shared is not None
    assert shared < short
    assert values(result.rows, "epie")["object", "residual_minus_baseline"] == pytest.approx(shared - short)
    assert verify_comparison(tmp_path / "out")["passed"]


def test_reading_is_handed_on(plugins: None, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """[COMP-005] The dose that is asked for is that of the candidates."""
    result = compare_run(*pair, tmp_path / "out", of("flat", reading={"nphotons": 1e4}))
    assert not result.failed
    facts = json.loads((tmp_path / "out" / "comparison.json").read_text())["scans"]["test"]["facts"]
    assert facts["photons a pattern"] == "1e+04"
