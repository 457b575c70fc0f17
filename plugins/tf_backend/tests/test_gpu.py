"""The same code on CUDA. Requirements: specs/07-reconstructor.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from backend_suite.fits import Fits, Trained, patches_of

from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.reconstruction import reconstruct
from ptychopinn.simulate import simulate_scan
from ptychopinn_tf.arrays import CupyLibrary

GPUS = tf.config.list_physical_devices("GPU")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="no CUDA device is there")]
CUDA = {"accelerator": "cuda"}


@pytest.fixture(scope="module")
def on_cuda(fits: Fits, scan: ScanDataset) -> Trained:
    return fits.fit_to(scan, train={"nepochs": 3}, options=CUDA)


def test_training_runs_on_the_device(on_cuda: Trained, fits: Fits) -> None:
    """[TRAIN-009]"""
    assert {v.device[-6:] for v in on_cuda.reconstructor.trained_model().variables().values()} == {":GPU:0"}
    assert str(fits.new(options={"accelerator": "auto"}).device) == "/GPU:0"


def test_training_is_nearly_that_of_the_cpu(on_cuda: Trained, fits: Fits, scan: ScanDataset) -> None:
    on_cpu = fits.fit_to(scan, train={"nepochs": 3})
    assert on_cuda.result.history["loss"] == pytest.approx(on_cpu.result.history["loss"], rel=0.02)


def test_the_same_seed_gives_the_same_model(on_cuda: Trained, fits: Fits, scan: ScanDataset) -> None:
    """[REC-004]"""
    again = fits.fit_to(scan, train={"nepochs": 3}, options=CUDA)
    for name, array in on_cuda.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array, err_msg=name)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("N", [32, 64, 128, 256])
def test_predictions_are_those_of_the_cpu(fits: Fits, tmp_path: Path, N: int, xla: bool) -> None:
    """[REC-008] To 1e-3 of the amplitude, from one archive, at every size."""
    scan = simulate_scan(SimulationConfig(N=N, rows=3, cols=3, seed=1))
    model = {"N": N, "iterations": 3, "n_filters_scale": 0.3}
    found = fits.fit_to(scan, model=model, options={**CUDA, "xla": xla})
    found.reconstructor.save(tmp_path / "model")
    on_cpu = fits.cls.load(tmp_path / "model", fits.options(accelerator="cpu"))
    one, other = (patches_of(reconstructor, scan) for reconstructor in (found.reconstructor, on_cpu))
    np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(other).mean())


@pytest.mark.parametrize("settings", [{}, {"refine": 2, "refine_probe": True}, {"synchronise": "off"}])
def test_objects_are_those_of_the_cpu(
    fits: Fits, on_cuda: Trained, scan: ScanDataset, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """[REC-012] To 1e-3 of the amplitude, computed by CuPy."""
    pytest.importorskip("cupy")
    on_cuda.reconstructor.save(tmp_path / "model")
    on_cpu = fits.cls.load(tmp_path / "model", fits.options(accelerator="cpu"))
    assert isinstance(on_cuda.reconstructor.library, CupyLibrary)
    config = InferConfig(**{"refine": 0, **settings})
    one, other = (reconstruct(r, scan, config) for r in (on_cuda.reconstructor, on_cpu))
    np.testing.assert_allclose(one.object, other.object, atol=1e-3 * np.abs(other.object).mean())
    np.testing.assert_array_equal(reconstruct(on_cuda.reconstructor, scan, config).object, one.object)


@pytest.mark.parametrize(
    "options", [{"precision": "bf16"}, {"xla": True}, {"num_workers": 2}, {"devices": max(len(GPUS), 1)}]
)
def test_every_option_runs_on_the_device(
    on_cuda: Trained, fits: Fits, scan: ScanDataset, options: dict[str, Any]
) -> None:
    found = fits.fit_to(scan, train={"nepochs": 3}, options={**CUDA, **options})
    assert found.result.history["loss"] == pytest.approx(on_cuda.result.history["loss"], rel=0.2)


def test_no_more_memory_is_taken_than_needed(on_cuda: Trained) -> None:
    assert tf.config.experimental.get_memory_info("GPU:0")["peak"] < 2**30
