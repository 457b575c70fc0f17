"""From a scan file to a run directory and back, as the command line does it. Requirements: specs/09-command-line.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_suite.fits import TINY_MODEL, TINY_TRAIN, Fits
from ptychopinn.config.files import read_config_file
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.npz import write_scan
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.product import read_product
from ptychopinn.workflows import RunResult, infer_run, train_run

MODEL = {name: value for name, value in TINY_MODEL.items() if name != "N"}
Run = Callable[..., RunResult]


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr("ptychopinn.workflows._outputs.write_pictures", lambda *args, **kwargs: {})


@pytest.fixture
def scan_file(scan: ScanDataset, tmp_path: Path) -> Path:
    write_scan(tmp_path / "scan.npz", scan)
    return tmp_path / "scan.npz"


@pytest.fixture
def run(fits: Fits) -> Run:
    def train(scan: Path, folder: Path, train: dict[str, Any] | None = None, **changes: Any) -> RunResult:
        settings = {"backend": fits.cls.backend, "model": MODEL, "options": {"accelerator": "cpu", "logger": "csv"}}
        return train_run(scan, folder, **{**settings, "train": {**TINY_TRAIN, **(train or {})}, **changes})

    return train


def test_train_resume_infer(run: Run, scan_file: Path, tmp_path: Path) -> None:
    """[CLI-020] [CLI-021]"""
    folder = tmp_path / "run"
    run(scan_file, folder, {"nepochs": 2})
    names = {"checkpoints", "config.yaml", "csv", "history.csv", "reconstruction.h5", "report.html", "wts.h5.zip"}
    assert {path.name for path in folder.iterdir()} == names | {"run.log"}
    settings = read_config_file(folder / "config.yaml")
    assert settings["model"]["N"] == 32
    resumed = run(scan_file, folder, {"nepochs": 3}, resume=True)
    assert len((folder / "history.csv").read_text().splitlines()) == 1 + 3
    assert "Resuming after epoch 2" in (folder / "run.log").read_text()
    result = infer_run(folder, scan_file, tmp_path / "out", options={"accelerator": "cpu"})
    found, before = (read_product(r.files["product"]).object for r in (result, resumed))
    np.testing.assert_allclose(found, before, atol=1e-5)
    with pytest.raises(ConfigError, match="begun with another learning_rate"):
        run(scan_file, folder, {"nepochs": 3, "learning_rate": 0.5}, resume=True)
    run(scan_file, folder, overwrite=True, options={"accelerator": "cpu"})
    assert {path.name for path in folder.iterdir()} == (names | {"run.log"}) - {"csv"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": {**MODEL, "model_type": "supervised"}}, DataError, "placeholder"),
        ({"model": {**MODEL, "group_size": 30}}, ConfigError, "largest scan has 25"),
        ({"train": {"simulate_objects": "only", "probe_trainable": True}}, ConfigError, "probe_trainable cannot act"),
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
