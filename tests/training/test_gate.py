"""Scans made in Python pass the checks of files when a training gets them. Requirements: specs/01-data.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy_backend import NumpyReconstructor

from ptychopinn.config import ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.errors import DataError
from ptychopinn.simulate import simulate_scan


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=3))


def losses(data: ScanDataset, validation: ScanDataset | None = None) -> list[float]:
    found = NumpyReconstructor(ModelConfig(N=32)).train(data, TrainConfig(nepochs=2, seed=1), validation=validation)
    return found.history["loss"]


def test_a_training_on_a_dataset_is_that_on_its_file(
    scan: ScanDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[DATA-129] A gap of marks, an empty and a saturated pattern, and what is said of them once."""
    counts = np.asarray(scan.patterns).copy()
    counts[:, 12] = 2**32 - 1
    counts[9], counts[20] = 0, 65535
    y, x = scan.positions.T
    np.savez(tmp_path / "scan.npz", diff3d=counts, ycoords=y, xcoords=x, probeGuess=scan.probe)
    read = read_scan(tmp_path / "scan.npz")
    caplog.clear()
    expected = losses(read)
    assert "DATA-" not in caplog.text
    by_hand = ScanDataset(counts, scan.measurement, scan.positions, scan.probe)
    assert losses(by_hand) == expected
    for code in ("DATA-035", "DATA-120"):
        assert code in caplog.text


def test_positions_in_metres_are_refused_before_the_training(scan: ScanDataset) -> None:
    """[DATA-129] Those of a validation too."""
    in_metres = replace(scan, positions=scan.positions * 1e-8)
    for scans in ((in_metres,), (scan, in_metres)):
        with pytest.raises(DataError, match="not in metres"):
            losses(*scans)
