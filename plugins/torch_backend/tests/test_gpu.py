"""The same code on CUDA. Requirements: specs/07-reconstructor.md."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backend_suite.fits import Trained
from torch_fits import fit_to

from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.reconstructor import TrainStatus
from ptychopinn.simulate import simulate_scan
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.reconstructor import TorchReconstructor, choose_device
from ptychopinn_torch.training import TrainingLoop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is there"),
]

CUDA, CPU = TorchOptions(accelerator="cuda"), TorchOptions(accelerator="cpu")


@pytest.fixture(scope="module")
def on_cuda(scan: ScanDataset) -> Trained:
    return fit_to(scan, train={"nepochs": 3}, options={"accelerator": "cuda"})


@pytest.fixture
def no_more_memory() -> Iterator[None]:
    """Memory in use on the device is the same afterwards, but for what libraries keep."""
    before = _in_use()
    yield
    assert _in_use() - before < 2**20


def _in_use() -> int:
    """Bytes, without the workspaces of cuBLAS (32 MiB on Hopper) and cuFFT, which are kept for the next call."""
    gc.collect()
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    torch.backends.cuda.cufft_plan_cache.clear()  # type: ignore[no-untyped-call]
    return torch.cuda.memory_allocated()


def test_auto_is_cuda_here() -> None:
    assert choose_device(TorchOptions().accelerator).type == "cuda"


def test_training_runs_on_the_device(on_cuda: Trained, scan: ScanDataset) -> None:
    """[REC-003]"""
    assert on_cuda.result.status is TrainStatus.FINISHED
    assert on_cuda.reconstructor.device.type == "cuda"
    next(on_cuda.reconstructor.infer(scan, InferConfig()).batches)
    assert {p.device.type for p in on_cuda.reconstructor._trained().parameters()} == {"cuda"}


def test_training_is_nearly_that_of_the_cpu(on_cuda: Trained, scan: ScanDataset) -> None:
    on_cpu = fit_to(scan, train={"nepochs": 3})
    assert on_cuda.result.history["loss"] == pytest.approx(on_cpu.result.history["loss"], rel=0.02)


def test_the_same_seed_gives_the_same_model(on_cuda: Trained, scan: ScanDataset) -> None:
    """[REC-004]"""
    again = fit_to(scan, train={"nepochs": 3}, options={"accelerator": "cuda"})
    for name, array in on_cuda.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array, err_msg=name)


@pytest.mark.parametrize("N", [32, 64, 128, 256])
def test_predictions_are_those_of_the_cpu(tmp_path: Path, N: int) -> None:
    """[REC-008] To 1e-3 of the amplitude, from one archive, at every size."""
    scan = simulate_scan(SimulationConfig(N=N, rows=3, cols=3, seed=1))
    model = {"N": N, "iterations": 3, "n_filters_scale": 0.3}
    fit_to(scan, model=model, options={"accelerator": "cuda"}).reconstructor.save(tmp_path / "wts.h5.zip")
    found = [_patches(TorchReconstructor.load(tmp_path / "wts.h5.zip", o), scan) for o in (CUDA, CPU)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-3 * np.abs(found[1]).mean())


@pytest.mark.parametrize(
    "train",
    [
        {"simulate_objects": "mixed"},
        {"probe_trainable": True, "intensity_scale_trainable": True, "mae_weight": 1.0, "realspace_weight": 0.1},
        {"validation_fraction": 0.3, "accumulate_grad_batches": 2, "gradient_clip_algorithm": "value"},
    ],
)
def test_every_term_runs_on_the_device(scan: ScanDataset, train: dict[str, object]) -> None:
    found = fit_to(scan, train=train, options={"accelerator": "cuda"})
    assert np.isfinite(found.patches(scan)).all()


@pytest.mark.parametrize(
    "model",
    [
        {"architecture": "cnn", "group_size": None, "iterations": None, "gridsize": 2},
        {"model_type": "supervised"},
    ],
)
def test_every_model_runs_on_the_device(off_centre: ScanDataset, model: dict[str, object]) -> None:
    """Off the centre of the detector: where the network is told how the probe moves, it follows."""
    cuda, cpu = (
        fit_to(off_centre, model=model, train={"nepochs": 3}, options={"accelerator": device})
        for device in ("cuda", "cpu")
    )
    assert cuda.result.history["loss"] == pytest.approx(cpu.result.history["loss"], rel=0.02)
    offset = "illumination/offset_px"
    np.testing.assert_allclose(cuda.arrays()[offset], cpu.arrays()[offset], atol=0.02)
    assert np.isfinite(cuda.patches(off_centre)).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_scan_that_does_not_fit_is_streamed(on_cuda: Trained, scan: ScanDataset, workers: int) -> None:
    """[TRAIN-015]"""
    options = {"accelerator": "cuda", "num_workers": workers, "device_memory_budget_mb": 0}
    streamed = fit_to(scan, train={"nepochs": 3}, options=options)
    assert streamed.result.history["loss"] == pytest.approx(on_cuda.result.history["loss"], rel=1e-4)


@pytest.mark.parametrize("budget", [None, 0])
def test_probes_drawn_for_every_pattern(scan: ScanDataset, budget: int | None) -> None:
    """[TRAIN-011] Made on the device, or streamed."""
    train = {"simulate_objects": "mixed", "simulate_probes": "family", "nepochs": 3}
    cuda = fit_to(scan, train=train, options={"accelerator": "cuda", "device_memory_budget_mb": budget})
    cpu = fit_to(scan, train=train)
    assert cuda.result.history["loss"] == pytest.approx(cpu.result.history["loss"], rel=0.05)


def test_no_step_waits_for_the_device(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-014] By the word of the device itself."""
    original = TrainingLoop.train_on

    def watched(self: TrainingLoop, *args: Any, **more: Any) -> None:
        torch.cuda.set_sync_debug_mode("error" if self._plan.clock.step else "default")  # libraries begin with waiting
        try:
            original(self, *args, **more)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(TrainingLoop, "train_on", watched)
    fit_to(scan, train={"nepochs": 2, "probe_trainable": True, "mae_weight": 1.0}, options={"accelerator": "cuda"})


def test_low_precision(on_cuda: Trained, scan: ScanDataset) -> None:
    low = fit_to(scan, train={"nepochs": 3}, options={"accelerator": "cuda", "precision": "bf16"})
    assert low.result.history["loss"] == pytest.approx(on_cuda.result.history["loss"], rel=0.2)


def test_a_training_resumes_on_either_device(scan: ScanDataset, tmp_path: Path) -> None:
    settings = {"checkpoint_every": 1}
    fit_to(scan, train={**settings, "nepochs": 1}, options={"accelerator": "cuda"}, checkpoint_dir=tmp_path)
    for epochs, device in ((2, "cpu"), (3, "cuda")):
        found = fit_to(
            scan, train={**settings, "nepochs": epochs}, options={"accelerator": device}, checkpoint_dir=tmp_path
        )
        assert len(found.result.history["epoch"]) == epochs


@pytest.mark.usefixtures("no_more_memory")
def test_memory_is_given_back(scan: ScanDataset) -> None:
    """After a training and an inference in one process nothing stays on the device."""
    found = fit_to(scan, options={"accelerator": "cuda"})
    found.patches(scan)
    del found


def test_a_batch_that_does_not_fit_is_halved(
    on_cuda: Trained, scan: ScanDataset, caplog: pytest.LogCaptureFixture
) -> None:
    """[RECON-002] with the device's own error."""
    expected = on_cuda.patches(scan)
    network = on_cuda.reconstructor._trained().network
    forward = network.forward

    def greedy(amplitudes: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        if len(amplitudes) > 6:
            torch.empty(2**50, device="cuda")
        return forward(amplitudes, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "forward", greedy)
        found = on_cuda.patches(scan)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert "going on with 6" in caplog.text


def _patches(reconstructor: TorchReconstructor, scan: ScanDataset) -> np.ndarray:
    batches = list(reconstructor.infer(scan, InferConfig()).batches)
    return np.concatenate([batch.patches for batch in batches])
