"""Train on a scan file and fill a run directory. Requirements: specs/09-command-line.md."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_backend import NumpyReconstructor

from ptychopinn.bundle import read_bundle
from ptychopinn.config import SimulationConfig
from ptychopinn.config.files import read_config_file
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import ConfigError, DataError, PluginError, TrainingError, UsageError
from ptychopinn.monitor import NULL_MONITOR, Monitor, Progress
from ptychopinn.product import read_product
from ptychopinn.reconstructor import TrainingInterrupted, TrainStatus
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import RunResult, run_settings, train_run

OF_RUN = {"nepochs": 4, "seed": 7, "checkpoint_top_k": 9}  # as of the fixture `trained`
CONTENT = [
    "amplitude.png",
    "checkpoints",
    "config.yaml",
    "history.csv",
    "history.png",
    "phase.png",
    "probe.png",
    "reconstruction.h5",
    "reconstruction.json",
    "report.html",
    "run.log",
    "scan.json",
    "wts.h5.zip",
]


@pytest.fixture
def run(trained: RunResult, tmp_path: Path) -> Path:
    """A run of its own."""
    return Path(shutil.copytree(trained.folder, tmp_path / "run"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def train(scan: Path, folder: Path, monitor: Monitor = NULL_MONITOR, **given: Any) -> RunResult:
    sections = {name: given.pop(name) for name in ("model", "train", "infer", "execution") if name in given}
    settings = run_settings(given.pop("backend", "numpy"), **sections)
    return train_run(scan, folder, settings, monitor=monitor, **given)


def history_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_directory_holds_everything(trained: RunResult) -> None:
    """[CLI-020]"""
    assert names(trained.folder) == CONTENT
    assert all(path.is_file() and path.stat().st_size > 0 for path in trained.files.values())
    assert set(trained.files) >= {"model", "product", "amplitude", "phase", "probe", "report", "history table"}
    assert trained.warnings == ()


def test_the_model_alone(scan_file: Path, tmp_path: Path) -> None:
    """What does not want the scan reconstructed does not wait for it."""
    settings = {"nepochs": 1, "probe_refinement": 0}
    result = train(scan_file, tmp_path / "run", train=settings, only_model=True)
    assert result.figures["training"] == "finished"
    left_out = {*CONTENT} & {"amplitude.png", "history.png", "phase.png", "probe.png", "report.html"}
    left_out |= {"reconstruction.h5", "reconstruction.json"}
    assert names(tmp_path / "run") == [name for name in CONTENT if name not in left_out]


def test_the_figures_of_a_run(trained: RunResult) -> None:
    figures = trained.figures
    assert (figures["training"], figures["patches placed"], figures["patches dropped"]) == ("finished", 36, 0)
    last = history_of(trained.folder)[-1]
    assert figures["loss"] == pytest.approx(float(last["loss"]))
    assert figures["forward residual R"] < 0.1


def test_the_history_has_a_row_an_epoch(trained: RunResult) -> None:
    rows = history_of(trained.folder)
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)


def test_the_settings_are_written_as_they_were_in_force(trained: RunResult) -> None:
    settings = read_config_file(trained.folder / "config.yaml")
    assert settings["backend"] == "numpy"
    assert settings["model"]["N"] == 32  # of the scan
    assert (settings["train"]["nepochs"], settings["train"]["seed"]) == (4, 7)
    assert settings["infer"]["inference_batch_size"] == 5
    assert (settings["train"]["learning_rate"], settings["train"]["batch_size"]) == (1e-3, 4)  # those of a CPU
    assert settings["execution"]["accelerator"] == "auto"


def test_the_model_is_the_trained_one(trained: RunResult) -> None:
    bundle = read_bundle(trained.folder / "wts.h5.zip")
    assert bundle.manifest.training is not None
    assert (bundle.manifest.training.status, bundle.manifest.training.epochs) == ("finished", 4)
    newest = read_bundle(trained.folder / "checkpoints" / "epoch-0000004.ckpt.zip")
    np.testing.assert_array_equal(bundle.weights["network/step"], newest.weights["averaged/network/step"])


def test_the_product_lies_in_the_frame_of_the_scan(trained: RunResult, scan_file: Path) -> None:
    product, scan = read_product(trained.folder / "reconstruction.h5"), read_scan(scan_file)
    assert scan.object_guess is not None
    assert product.object.shape == scan.object_guess.shape
    np.testing.assert_allclose(product.local_positions, scan.positions, atol=1e-6)
    assert product.probe.shape == (1, 32, 32)
    assert product.coverage is not None
    assert [epoch for epoch, _ in product.losses] == [1, 2, 3, 4]
    assert "backend numpy" in product.comments


def test_the_log_and_the_report_tell_of_the_run(trained: RunResult) -> None:
    log = (trained.folder / "run.log").read_text()
    assert "Training finished" in log
    assert "forward residual" in log
    report = (trained.folder / "report.html").read_text()
    assert "Training on" in report
    assert "amp_activation" in report


@pytest.mark.usefixtures("without_pictures")
def test_a_run_is_replaced_only_when_asked(scan_file: Path, run: Path) -> None:
    """[CLI-015]"""
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    with pytest.raises(UsageError, match="is there and not empty"):
        train(scan_file, run)
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before
    train(scan_file, run, train={"nepochs": 1}, overwrite=True)
    assert len(history_of(run)) == 1
    assert names(run / "checkpoints") == ["epoch-0000001.ckpt.zip"]


def test_other_peoples_files_are_not_replaced(scan_file: Path, run: Path) -> None:
    (run / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"files that no run wrote: notes\.txt"):
        train(scan_file, run, overwrite=True)
    assert names(run) == sorted([*CONTENT, "notes.txt"])


@pytest.mark.usefixtures("without_pictures")
def test_a_run_is_resumed_from_its_last_checkpoint(scan_file: Path, run: Path) -> None:
    """[CLI-020] [CFG-011] How long it lasts may change; what the device said may be said as well."""
    changed = {**OF_RUN, "nepochs": 6, "batch_size": 4}
    result = train(scan_file, run, train=changed, resume=True)
    assert [float(row["epoch"]) for row in history_of(run)] == [1, 2, 3, 4, 5, 6]
    assert result.figures["training"] == "finished"
    assert read_config_file(run / "config.yaml")["train"]["nepochs"] == 6
    assert (run / "run.log").read_text().count("Training finished") == 2


@pytest.mark.usefixtures("without_pictures")
def test_a_resumed_run_reconstructs_as_before(scan_file: Path, run: Path) -> None:
    """[CLI-037] With its own settings where none are given, and without passes if it is older than these."""

    def resumed(config: str, **infer: object) -> dict[str, Any]:
        (run / "config.yaml").write_text(config)
        result = train(scan_file, run, train=OF_RUN, infer=infer, resume=True)
        kept = read_config_file(run / "config.yaml")["infer"]
        assert ("passes of refinement kept" in result.figures) == (kept["refine"] > 0)
        return kept

    config = (run / "config.yaml").read_text()
    assert "  refine: 2\n  refine_probe: false\n" in config
    assert resumed(config)["refine"] == 2
    assert resumed(config.replace("refine: 2", "refine: 0"))["refine"] == 0
    assert resumed(config.replace("  refine: 2\n", ""))["refine"] == 0
    assert resumed(config.replace("  refine: 2\n", ""), refine=1)["refine"] == 1
    with_probe = config.replace("refine_probe: false", "refine_probe: true")
    assert resumed(with_probe)["refine_probe"]
    assert not resumed(with_probe, refine=0)["refine_probe"]  # it would have no effect
    assert resumed(config)["inference_batch_size"] == 5


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"train": {"seed": 8}}, "seed"),
        ({"train": {"learning_rate": 2e-3, "seed": 7}}, "learning_rate"),
        ({"train": {"batch_size": 64, "seed": 7}}, "batch_size"),
        ({"model": {"gridsize": 2}, "train": {"seed": 7}}, "gridsize"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(
    scan_file: Path, run: Path, changed: Mapping[str, Any], named: str
) -> None:
    """The error names them; nothing is changed."""
    config = (run / "config.yaml").read_text()
    with pytest.raises(ConfigError, match=rf"started with another {named}\b.*config\.yaml"):
        train(scan_file, run, resume=True, **changed)
    assert (run / "config.yaml").read_text() == config
    assert names(run) == CONTENT


def test_resuming_a_run_that_is_not_there_starts_it(scan_file: Path, tmp_path: Path, without_pictures: None) -> None:
    """[CLI-015] As a job script does that may be queued again; also where the job was killed before its first epoch."""
    train(scan_file, tmp_path / "run", resume=True)
    assert "wts.h5.zip" in names(tmp_path / "run")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "run.log").write_text("half a line")
    train(scan_file, tmp_path / "killed", resume=True)
    assert "wts.h5.zip" in names(tmp_path / "killed")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="no run to resume"):
        train(scan_file, tmp_path / "notes", resume=True)


def test_a_started_run_that_is_refused_leaves_nothing_to_resume(scan_file: Path, tmp_path: Path) -> None:
    """[CLI-015] Else the mended job could not start it."""
    with pytest.raises(ConfigError):
        train(scan_file, tmp_path / "run", resume=True, train={"checkpoint_monitor": "nothing"})
    assert names(tmp_path) == []


@pytest.mark.parametrize("after", [1, 5])
def test_an_interrupted_training_leaves_its_model(scan_file: Path, tmp_path: Path, after: int) -> None:
    """[CLI-014] [RUN-006] A second Ctrl-C, or an interrupted cell of a notebook: the model of the last step."""

    def interrupt(progress: Progress) -> None:
        if progress.stage == "train" and progress.done == after:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as caught:
        train(scan_file, tmp_path / "run", monitor=Monitor(interrupt), train={"nepochs": 9})
    assert caught.value.result.status is TrainStatus.CANCELLED
    assert {"wts.h5.zip", "history.csv", "config.yaml"} <= set(names(tmp_path / "run"))
    assert len(history_of(tmp_path / "run")) == len(caught.value.result.history["epoch"])
    NumpyReconstructor.load(tmp_path / "run" / "wts.h5.zip")


def test_an_interrupt_while_the_model_is_saved_does_not_lose_it(
    scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[CLI-014]"""
    saved: list[Any] = []
    save = NumpyReconstructor.save

    def interrupted(self: NumpyReconstructor, path: Any) -> None:
        saved.append(path)
        if len(saved) == 1:
            raise KeyboardInterrupt
        save(self, path)

    monkeypatch.setattr(NumpyReconstructor, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(scan_file, tmp_path / "run")
    NumpyReconstructor.load(tmp_path / "run" / "wts.h5.zip")


def test_a_picture_that_fails_leaves_the_result(
    scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[RUN-005] Product and report are there."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("latex was not found")

    monkeypatch.setattr("ptychopinn.workflows._outputs.write_pictures", fail)
    result = train(scan_file, tmp_path / "run")
    assert {"product", "report", "model"} <= result.files.keys()
    assert "phase" not in result.files
    assert "The pictures could not be made: RuntimeError: latex was not found" in caplog.text
    monkeypatch.setattr("ptychopinn.workflows._outputs.write_report", fail)
    assert "report" not in train(scan_file, tmp_path / "other").files


def test_a_cancelled_training_leaves_its_model(scan_file: Path, tmp_path: Path) -> None:
    """[REC-009] saved and loadable, without a reconstruction."""
    monitor = Monitor(lambda progress: monitor.cancel() if progress.stage == "train" and progress.done == 4 else None)
    result = train(scan_file, tmp_path / "run", monitor=monitor, train={"nepochs": 9})
    assert names(tmp_path / "run") == [
        "checkpoints",
        "config.yaml",
        "history.csv",
        "run.log",
        "scan.json",
        "wts.h5.zip",
    ]
    assert result.figures["training"] == "cancelled"
    assert any("cancelled" in warning for warning in result.warnings)
    assert len(history_of(tmp_path / "run")) == 2
    assert read_bundle(result.files["model"]).manifest.training is not None
    NumpyReconstructor.load(result.files["model"])


def test_cancelled_before_the_first_epoch(scan_file: Path, tmp_path: Path) -> None:
    """[REC-009]"""
    monitor = Monitor()
    monitor.cancel()
    result = train(scan_file, tmp_path / "run", monitor=monitor)
    assert (result.figures["training"], history_of(tmp_path / "run")) == ("cancelled", [])
    NumpyReconstructor.load(result.files["model"])


def test_a_loss_that_breaks_leaves_the_last_good_model(scan_file: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nan"):
        train(scan_file, tmp_path / "run", execution={"loss_breaks": True})
    assert {"wts.h5.zip", "run.log", "config.yaml"} <= set(names(tmp_path / "run"))
    NumpyReconstructor.load(tmp_path / "run" / "wts.h5.zip")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"train": {"nepochs": 0}}, ConfigError, "nepochs is 0"),
        ({"train": {"nepoch": 1}}, ConfigError, "did you mean nepochs"),
        ({"model": {"N": 64}}, DataError, "32 x 32; this model has N = 64"),
        ({"execution": {"warp": 9}}, ConfigError, "warp is not known"),
        ({"backend": "jax"}, PluginError, "no backend 'jax'"),
        ({"validation": "nowhere.npz"}, DataError, "nowhere.npz"),
        ({"infer": {"synchronise": "perhaps"}}, ConfigError, "synchronise is perhaps"),
    ],
)
def test_refusals_leave_no_directory(
    scan_file: Path, tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(scan_file, tmp_path / "run", **settings)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model": {"model_type": "supervised"}}, "supervised"),
        ({"train": {"simulate_objects": "mixed"}}, "simulated_objects"),
        ({"execution": {"accelerator": "cuda"}}, "cuda"),
        ({"execution": {"accelerator": "cuda:1"}}, "cuda"),
        ({"execution": {"accelerator": "cuda"}, "model": {"model_type": "supervised"}}, "supervised, cuda"),
    ],
)
def test_what_a_backend_cannot_do_is_refused(
    scan_file: Path, tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    """[REC-011]"""
    with pytest.raises(ConfigError, match=rf"'numpy' cannot do this: {named}\. It can: cpu, pinn, resume"):
        train(scan_file, tmp_path / "run", **settings)
    assert names(tmp_path) == []


def test_a_refused_scan_leaves_no_directory(tmp_path: Path) -> None:
    (tmp_path / "scan.npz").write_bytes(b"no zip")
    with pytest.raises(DataError):
        train(tmp_path / "scan.npz", tmp_path / "run")
    assert names(tmp_path) == ["scan.npz"]


@pytest.mark.usefixtures("without_pictures")
def test_the_scans_are_handed_over(scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.npz"
    write_scan(other, simulate_scan(SimulationConfig(N=32, rows=3, cols=3, seed=5)))
    seen: dict[str, Any] = {}
    original = NumpyReconstructor.train

    def spy(self: NumpyReconstructor, data: Any, config: Any, **rest: Any) -> Any:
        seen.update(rest, data=data, config=config)
        return original(self, data, config, **rest)

    monkeypatch.setattr(NumpyReconstructor, "train", spy)
    train(scan_file, tmp_path / "run", validation=other, train={"nepochs": 1})
    assert (len(seen["data"]), len(seen["validation"])) == (36, 9)
    assert seen["config"].nepochs == 1
    assert seen["checkpoint_dir"] == tmp_path / "run" / "checkpoints"


@pytest.mark.usefixtures("without_pictures")
def test_warnings_reach_the_result_the_report_and_the_log(
    tmp_path: Path, scan_file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[RECON-003]"""
    monkeypatch.setattr("ptychopinn.reconstruction.FLATNESS_LIMIT", 10)
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        result = train(scan_file, tmp_path / "run", train={"nepochs": 1})
    assert result.warnings[0].startswith("The object is flat")
    assert "The object is flat" in (tmp_path / "run" / "report.html").read_text()
    assert "WARNING ptychopinn.reconstruction: The object is flat" in (tmp_path / "run" / "run.log").read_text()
