"""Whole batches: specs/27-batch.md."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_limits import file_limit
from toy_distribution import install_plugins

from ptychopinn.batch import BatchResult, ScanStatus, batch_run, read_plan
from ptychopinn.batch.plan import planned_scans
from ptychopinn.batch.table import by_score
from ptychopinn.config import SimulationConfig
from ptychopinn.config.run import AllSettings
from ptychopinn.data.io import write_scan
from ptychopinn.errors import Cancelled, UsageError
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows.lock import locked

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("batch")]
FLAT = {"start": "none"}
QUICK = {"may_free": []}


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scans of 36 patterns of 32 x 32, the second of which is damaged."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in (1, 2, 3):
        path = folder / f"s{seed}.npz"
        write_scan(path, simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=seed)))
    content = (folder / "s2.npz").read_bytes()
    (folder / "s2.npz").write_bytes(content[: len(content) // 2])
    return folder


@pytest.fixture(scope="session")
def finished(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> BatchResult:
    """A batch of two that succeed and one that fails; tests that change its directory copy it."""
    plan = read_plan(scans / "*.npz", batch={**FLAT, "workers": 2}, automatic=QUICK)
    return batch_run(plan, tmp_path_factory.mktemp("batches") / "out")


def run_again(scans: Path, out: Path, *, monitor: Monitor | None = None, **batch: Any) -> BatchResult:
    """Resume a batch over the scans that are not damaged."""
    plan = read_plan(scans / "s[13].npz", batch={**FLAT, **batch}, automatic=QUICK)
    return batch_run(plan, out, resume=True, monitor=monitor or Monitor())


def times(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("scans/*/reconstruction.h5")}


def test_one_that_fails_loses_no_other(finished: BatchResult, scans: Path) -> None:
    """[BATCH-003] Each has a run directory; the table has a row for each, with the reason."""
    assert [one.status for one in finished.scans] == [ScanStatus.DONE, ScanStatus.FAILED, ScanStatus.DONE]
    assert list(finished.failed) == ["s2"]
    assert "s2.npz" in finished.failed["s2"]
    with finished.files["table"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["status"], row["folder"]) for row in rows] == [
        ("s1", "done", "scans/s1"),
        ("s2", "failed", "scans/s2"),
        ("s3", "done", "scans/s3"),
    ]
    for row in (rows[0], rows[2]):
        assert 0.5 < float(row["score"]) <= 1.1
        assert float(row["forward residual R"]) < float(row["residual of a flat object"])
        assert (finished.folder / row["folder"] / "report.html").is_file()
    assert rows[1]["score"] == ""


def test_the_report_has_thumbnails_with_the_best_first(finished: BatchResult) -> None:
    """[BATCH-003]"""
    text = finished.files["report"].read_text()
    ranked = [one.name for one in by_score(finished.scans)]
    assert ranked[-1] == "s2"
    places = [text.index(f"<figcaption>{name}: ") for name in ranked[:2]]
    assert places == sorted(places)
    assert text.count('<figure class="small">') == 2
    assert "s2 failed: " in text


def test_a_result_that_is_whole_is_not_done_again(finished: BatchResult, scans: Path, tmp_path: Path) -> None:
    """[BATCH-004] One that lacks a byte is, and so is one with other settings."""
    out = Path(shutil.copytree(finished.folder, tmp_path / "out"))
    before = times(out)
    result = run_again(scans, out)
    assert times(out) == before
    assert [one.score for one in result.scans] == [finished.scans[0].score, finished.scans[2].score]
    assert all(one.thumbnail is not None for one in result.scans)
    picture = out / "scans/s1/phase.png"
    picture.write_bytes(picture.read_bytes()[:-1])
    run_again(scans, out)
    assert times(out)["s1"] != before["s1"]
    assert times(out)["s3"] == before["s3"]
    old, new = (read_product(folder / "scans/s1/reconstruction.h5").object for folder in (finished.folder, out))
    np.testing.assert_array_equal(old, new)


def test_a_cancelled_batch_leaves_what_is_done(scans: Path, tmp_path: Path) -> None:
    """[BATCH-005] The table says what is open; resumed, only that is done."""
    monitor = Monitor(lambda event: monitor.cancel() if event.done else None)
    with pytest.raises(Cancelled, match=r"1 of 2 scans are done\. Continue with --resume"):
        run_again(scans, tmp_path / "out", monitor=monitor)
    table = (tmp_path / "out/batch.csv").read_text()
    assert "scans/s1,done" in table
    assert "scans/s3,open" in table
    before = times(tmp_path / "out")
    result = run_again(scans, tmp_path / "out")
    assert times(tmp_path / "out")["s1"] == before["s1"]
    assert not result.failed
    assert len(result.scans) == 2


def test_a_batch_that_comes_to_nothing_leaves_the_earlier_one(
    finished: BatchResult, scans: Path, tmp_path: Path
) -> None:
    """[BATCH-005]"""
    out = Path(shutil.copytree(finished.folder, tmp_path / "out"))
    before = (out / "batch.csv").read_bytes()
    monitor = Monitor()
    monitor.cancel()
    with pytest.raises(Cancelled, match=r"0 of 2 scans are done"):
        batch_run(read_plan(scans / "s[13].npz", batch=FLAT, automatic=QUICK), out, overwrite=True, monitor=monitor)
    assert (out / "batch.csv").read_bytes() == before


def test_two_batches_in_one_directory_are_refused(finished: BatchResult, scans: Path, tmp_path: Path) -> None:
    """[BATCH-002]"""
    out = Path(shutil.copytree(finished.folder, tmp_path / "out"))
    with locked(out), pytest.raises(UsageError, match="is in use by process"):
        run_again(scans, out)


def test_a_full_disk_fails_what_does_not_fit(scans: Path, tmp_path: Path) -> None:
    """[BATCH-003] The others are done."""
    write_scan(tmp_path / "large.npz", simulate_scan(SimulationConfig(N=64, rows=16, cols=16, seed=1)))
    paths = [str(tmp_path / "large.npz"), str(scans / "s1.npz")]
    plan = AllSettings(batch={**FLAT, "scans": paths, "retries": 0}, automatic={**QUICK, "max_time": 0.1})
    with file_limit(250_000):
        result = batch_run(plan, tmp_path / "out")
    assert list(result.failed) == ["large"]
    assert "could not be written" in result.failed["large"]
    assert list(times(tmp_path / "out")) == ["s1"]


def test_a_chain_starts_from_the_probe_of_the_scan_before(scans: Path, tmp_path: Path) -> None:
    """[BATCH-007] Of the last one that succeeded."""
    plan = read_plan(scans / "s*.npz", batch={**FLAT, "chain": True}, automatic={**QUICK, "max_time": 0.1})
    result = batch_run(plan, tmp_path / "out")
    assert list(result.failed) == ["s2"]
    first, last = (json.loads((tmp_path / "out/jobs" / name / "task.json").read_text()) for name in ("s1", "s3"))
    assert "reading" not in first["arguments"]["scan"]["settings"]
    probe = last["arguments"]["scan"]["settings"]["reading"]["probe"]
    assert probe == str(tmp_path / "out/scans/s1/reconstruction.h5")
    assert "The probe is that of reconstruction.h5." in (tmp_path / "out/jobs/s3/job.log").read_text()
    (scan, *_) = planned_scans(plan)
    assert len({scan.key(None), scan.key("a"), scan.key("b")}) == 3, "it is done again where another is before it"


def test_train_infer_and_evaluate(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[BATCH-001] [BATCH-007] In a chain each training goes on from the model before."""
    install_plugins(tmp_path, monkeypatch)
    plan = read_plan(
        scans / "s[13].npz",
        batch={"workflow": "train", "chain": True},
        train={"nepochs": 1, "probe_refinement": 0},
        infer={"refine": 0},
    )
    trained = batch_run(plan, tmp_path / "trained")
    assert not trained.failed
    task = json.loads((tmp_path / "trained/jobs/s3/task.json").read_text())
    assert task["arguments"]["scan"]["start"] == str(tmp_path / "trained/scans/s1")
    start = {"workflow": "infer", "start": str(trained.scans[0].folder)}
    inferred = batch_run(read_plan(scans / "s1.npz", batch=start, infer={"refine": 0}), tmp_path / "inferred")
    assert not inferred.failed
    reference = {"workflow": "evaluate", "reference": str(scans / "s1.npz")}
    products = tmp_path / "inferred/scans/*/reconstruction.h5"
    (one,) = batch_run(read_plan(products, batch=reference), tmp_path / "scores").scans
    assert one.status is ScanStatus.DONE
    assert one.score == one.figures["phase_ssim"]
    assert one.thumbnail is not None


def test_progress_counts_scans(scans: Path, finished: BatchResult, tmp_path: Path) -> None:
    """[BATCH-005]"""
    out = Path(shutil.copytree(finished.folder, tmp_path / "out"))
    events: list[Progress] = []
    run_again(scans, out, monitor=Monitor(events.append))
    assert [(event.stage, event.done, event.total) for event in events][-1] == ("scans", 2, 2)
