"""Scans made in Python pass the checks of files when a training gets them. Requirements: specs/01-data.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_backend import NumpyReconstructor

from ptychopinn.automatic import reconstruct_automatically
from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.automatic import AutomaticConfig
from ptychopinn.config.solver import SolverOptions
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.from_arrays import mend_scan
from ptychopinn.data.io import read_scan
from ptychopinn.errors import DataError
from ptychopinn.reconstruction import reconstruct
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers import RPIE


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


def doors(trained: NumpyReconstructor) -> dict[str, Callable[[ScanDataset], Any]]:
    """What takes a scan and gives an object or patches."""
    config = InferConfig(refine=2)
    return {
        "infer": lambda data: trained.infer(data, config).collect(len(data)),
        "reconstruct": lambda data: reconstruct(trained, data, config).object,
        "automatic": lambda data: (
            reconstruct_automatically(data, None, AutomaticConfig(may_free=())).reconstruction.object
        ),
        "solver": lambda data: RPIE(SolverOptions(passes=2)).reconstruct(data).object,
    }


@pytest.mark.parametrize("name", ["infer", "reconstruct", "automatic", "solver"])
def test_a_scan_of_arrays_is_reconstructed_as_its_file(name: str, scan: ScanDataset, tmp_path: Path) -> None:
    """[DATA-129] A gap of marks joins the bad pixels, metres and a scan with an empty pattern are refused in words."""
    trained = NumpyReconstructor(ModelConfig(N=32))
    trained.train(scan, TrainConfig(nepochs=1, seed=1))
    door = doors(trained)[name]
    counts = np.asarray(scan.patterns).copy()
    counts[:, 12] = 2**32 - 1
    y, x = scan.positions.T
    np.savez(tmp_path / "scan.npz", diff3d=counts, ycoords=y, xcoords=x, probeGuess=scan.probe)
    by_hand = ScanDataset(counts, scan.measurement, scan.positions, scan.probe)
    np.testing.assert_array_equal(door(by_hand), door(read_scan(tmp_path / "scan.npz")))
    with pytest.raises(DataError, match="not in metres"):
        door(replace(by_hand, positions=scan.positions * 1e-8))
    dark = counts.copy()
    dark[9] = 0
    with pytest.raises(DataError, match="1 of 36 patterns.*are empty.*mend_scan"):
        door(replace(by_hand, patterns=dark))
    assert len(door(mend_scan(replace(by_hand, patterns=dark)))) > 0


def test_positions_in_metres_are_refused_before_the_training(scan: ScanDataset) -> None:
    """[DATA-129] Those of a validation too."""
    in_metres = replace(scan, positions=scan.positions * 1e-8)
    for scans in ((in_metres,), (scan, in_metres)):
        with pytest.raises(DataError, match="not in metres"):
            losses(*scans)
