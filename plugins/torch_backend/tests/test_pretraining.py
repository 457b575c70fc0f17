"""A network for scans that nobody has measured. Requirements: specs/22-reconstruct.md."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ptychopinn.bundle import read_manifest
from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import infer_run, pretrain_run


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a training of a moment."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    pretrain_run(folder, 64, seconds=1.0, backend="torch", execution={"accelerator": "cpu", "num_workers": 0})
    return folder / "wts.h5.zip"


@pytest.mark.slow
def test_the_archive_says_what_it_was_trained_on(pretrained: Path) -> None:
    """[MODEL-003]"""
    manifest = read_manifest(pretrained)
    record = manifest.extra["pretraining"]
    assert manifest.training is not None
    assert manifest.training.config["simulate_probes"] == "family"
    assert record["seed"] == manifest.training.config["seed"]
    assert record["seed"] not in [examined["seed"] for examined in record["examined"]]
    assert np.isfinite([value for scores in record["scores"] for value in scores.values()]).all()


@pytest.mark.slow
def test_it_predicts_with_the_probe_of_the_scan(
    pretrained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[MODEL-002]"""
    scan = simulate_scan(SimulationConfig(N=64, rows=4, cols=4, probe_kind="defocused", seed=5))
    write_scan(tmp_path / "scan.npz", scan)
    with caplog.at_level(logging.INFO, logger="ptychopinn"):
        result = infer_run(pretrained, tmp_path / "scan.npz", tmp_path / "out")
    assert "the probe of the scan is used" in caplog.text
    probe = read_product(result.files["product"]).probe
    overlap = abs(np.vdot(probe, scan.probe)) / (np.linalg.norm(probe) * np.linalg.norm(scan.probe))
    assert overlap > 0.95  # but for the ramp of the offset that a few patterns seem to have
