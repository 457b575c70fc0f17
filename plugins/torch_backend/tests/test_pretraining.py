"""A network for scans that nobody has measured. Requirements: specs/22-reconstruct.md."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ptychopinn.bundle import read_bundle, read_manifest
from ptychopinn.config import ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data.io import write_scan
from ptychopinn.errors import ConfigError
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import infer_run, pretrain_run
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.reconstructor import TorchReconstructor


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a training of a moment."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    pretrain_run(folder, 64, seconds=1.0, backend="torch", execution={"accelerator": "cpu", "num_workers": 0})
    return folder / "wts.h5.zip"


def test_a_network_starts_from_one_for_smaller_patterns(tmp_path: Path) -> None:
    """[MODEL-003] It has its weights but for the finest iterations; a resumed training still says so."""
    fields = {"iterations": 2, "fine_iterations": 2, "group_size": 1, "n_filters_scale": 0.25}
    settings = TrainConfig(nepochs=1, probe_refinement=0, batch_size=8, learning_rate=1e-9)
    small = TorchReconstructor(ModelConfig(N=32, **fields), TorchOptions(accelerator="cpu"))
    small.train(simulate_scan(SimulationConfig(N=32, rows=4, cols=4)), settings)
    small.save(tmp_path / "small.zip")
    scan, wide = simulate_scan(SimulationConfig(N=64, rows=4, cols=4)), ModelConfig(N=64, **{**fields, "iterations": 4})
    for start in (tmp_path / "small.zip", None):
        reconstructor = TorchReconstructor(wide, TorchOptions(accelerator="cpu"))
        if start is not None:
            reconstructor.start_from(start)
        reconstructor.train(scan, settings, checkpoint_dir=tmp_path / "checkpoints")
        reconstructor.save(tmp_path / "wide.zip")
        small_one, wide_one = read_bundle(tmp_path / "small.zip"), read_bundle(tmp_path / "wide.zip")
        assert wide_one.manifest.extra["started_from"]["sha256"] == dict(small_one.manifest.sha256)
        np.testing.assert_allclose(
            wide_one.weights["network/head/1/weight"], small_one.weights["network/head/1/weight"], atol=1e-6
        )
        assert wide_one.weights["network/head/3/weight"].shape != small_one.weights["network/head/1/weight"].shape
    other = TorchReconstructor(ModelConfig(N=64, **{**fields, "n_filters_scale": 2.0}), TorchOptions(accelerator="cpu"))
    other.start_from(tmp_path / "small.zip")
    with pytest.raises(ConfigError, match="No tensor of the archive"):
        other.train(scan, settings)


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
