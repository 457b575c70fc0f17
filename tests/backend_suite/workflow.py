"""From a scan file to a run directory and back, as the command line does it. Requirements: specs/09-command-line.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_suite.fits import TINY_MODEL, TINY_TRAIN, Fits
from ptychopinn.bundle import read_bundle
from ptychopinn.config.files import read_config_file
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.errors import ArchiveError, ConfigError, DataError
from ptychopinn.product import read_product
from ptychopinn.workflows import RunResult, infer_run, run_settings, train_run

MODEL = {name: value for name, value in TINY_MODEL.items() if name != "N"}
Run = Callable[..., RunResult]


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr("ptychopinn.workflows._outputs.write_pictures", lambda *args, **kwargs: {})


@pytest.fixture
def scan_file(scan: ScanDataset, tmp_path: Path) -> Path:
    """The scan in a file."""
    write_scan(tmp_path / "scan.npz", scan)
    return tmp_path / "scan.npz"


@pytest.fixture
def run(fits: Fits) -> Run:
    """Train on a scan file into a folder with few, small settings; sections can be replaced."""

    def train(scan: Path, folder: Path, train: dict[str, Any] | None = None, **changes: Any) -> RunResult:
        sections = {"model": MODEL, "execution": {"accelerator": "cpu", "logger": "csv"}}
        sections = {name: changes.pop(name, value) for name, value in sections.items()}
        settings = run_settings(fits.cls.backend, train={**TINY_TRAIN, **(train or {})}, **sections)
        return train_run(scan, folder, settings, **changes)

    return train


def test_train_resume_infer(run: Run, scan_file: Path, tmp_path: Path) -> None:
    """[CLI-020] [CLI-021]"""
    folder = tmp_path / "run"
    run(scan_file, folder, {"nepochs": 2})
    names = {
        "checkpoints",
        "config.yaml",
        "csv",
        "history.csv",
        "reconstruction.h5",
        "reconstruction.json",
        "report.html",
        "run.log",
        "scan.json",
        "wts.h5.zip",
    }
    assert {path.name for path in folder.iterdir()} == names
    settings = read_config_file(folder / "config.yaml")
    assert settings["model"]["N"] == 32
    resumed = run(scan_file, folder, {"nepochs": 3}, resume=True)
    assert len((folder / "history.csv").read_text().splitlines()) == 1 + 3
    assert "Resuming after epoch 2" in (folder / "run.log").read_text()
    result = infer_run(folder, scan_file, tmp_path / "out", run_settings(execution={"accelerator": "cpu"}))
    found, before = (read_product(r.files["product"]).object for r in (result, resumed))
    np.testing.assert_allclose(found, before, atol=1e-5)
    with pytest.raises(ConfigError, match="started with another learning_rate"):
        run(scan_file, folder, {"nepochs": 3, "learning_rate": 0.5}, resume=True)
    run(scan_file, folder, overwrite=True, execution={"accelerator": "cpu"})
    assert {path.name for path in folder.iterdir()} == names - {"csv"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": {**MODEL, "model_type": "supervised"}}, DataError, "placeholder"),
        ({"model": {**MODEL, "group_size": 30}}, ConfigError, "largest scan has 25"),
        (
            {"train": {"simulate_objects": "only", "probe_trainable": True}},
            ConfigError,
            "probe_trainable has no effect",
        ),
        ({"train": {"checkpoint_monitor": "beauty"}}, ConfigError, "'beauty' is not a figure"),
    ],
)
def test_refusals_leave_no_directory(
    run: Run,
    scan: ScanDataset,
    tmp_path: Path,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    assert scan.object_guess is not None
    write_scan(tmp_path / "scan.npz", replace(scan, object_guess=np.ones_like(scan.object_guess)))
    with pytest.raises(error, match=message):
        run(tmp_path / "scan.npz", tmp_path / "run", **changes)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]


def test_going_on_from_another_run(run: Run, scan_file: Path, scan: ScanDataset, tmp_path: Path) -> None:
    """[CLI-030] The network of a run, on another scan, under that scan's probe."""
    first = run(scan_file, tmp_path / "first", {"nepochs": 2})
    probe = (scan.probe * np.exp(0.5j * np.linspace(-1, 1, 32) ** 2)).astype(np.complex64)
    write_scan(tmp_path / "other.npz", replace(scan, probe=probe))
    settings: dict[str, Any] = {"learning_rate": 1e-9, "start_probe": "scan"}
    second = run(tmp_path / "other.npz", tmp_path / "second", settings, model={}, start=first.folder)
    before, after = (read_bundle(result.files["model"]) for result in (first, second))
    assert after.manifest.model == before.manifest.model
    for name, array in before.weights.items():
        if name.startswith("network/"):
            np.testing.assert_allclose(after.weights[name], array, atol=1e-6, err_msg=name)
    found = after.weights["illumination/probe"]
    assert abs(np.vdot(found, probe)) == pytest.approx(np.linalg.norm(found) * np.linalg.norm(probe), rel=1e-3)
    with pytest.raises(ConfigError, match=r"The model to continue from has n_filters_scale = 0.1 \(not 0.2\)"):
        run(scan_file, tmp_path / "third", model={"n_filters_scale": 0.2}, start=first.folder)
    with pytest.raises(ArchiveError):
        run(scan_file, tmp_path / "third", start=scan_file)
    assert not (tmp_path / "third").exists()
