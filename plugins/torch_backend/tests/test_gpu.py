"""The same code on CUDA. Requirements: specs/07-reconstructor.md."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backend_suite.fits import Trained, patches_of
from backend_suite.golden import GOLDEN
from torch_fits import fit_to

from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.live import Chunk, stream
from ptychopinn.parity import parity_run
from ptychopinn.reconstruction import Reconstruction, reconstruct
from ptychopinn.reconstructor import TrainStatus
from ptychopinn.simulate import simulate_scan
from ptychopinn_torch.captured import WARM_UP_STEPS
from ptychopinn_torch.devices import choose_device
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.reconstructor import TorchReconstructor
from ptychopinn_torch.training import TrainingLoop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is there"),
]

CUDA, CPU = TorchOptions(accelerator="cuda"), TorchOptions(accelerator="cpu")
MODEL = GOLDEN / "torch-fast" / "wts.h5.zip"  # of N = 32; trained, so that phases are well determined


@pytest.fixture(scope="module")
def on_cuda(scan: ScanDataset) -> Trained:
    return fit_to(scan, train={"nepochs": 3}, options={"accelerator": "cuda"})


@pytest.fixture(scope="module")
def larger() -> ScanDataset:
    """100 patterns of 32 x 32."""
    return simulate_scan(SimulationConfig(N=32, rows=10, cols=10, seed=2))


def test_auto_is_cuda_here() -> None:
    assert choose_device(TorchOptions().accelerator).type == "cuda"


def test_training_runs_on_the_device(on_cuda: Trained, scan: ScanDataset) -> None:
    """[REC-003]"""
    assert on_cuda.result.status is TrainStatus.FINISHED
    assert on_cuda.reconstructor.device.type == "cuda"
    next(on_cuda.reconstructor.infer(scan, InferConfig()).batches)
    assert {p.device.type for p in on_cuda.reconstructor.trained_model().parameters()} == {"cuda"}


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
    found = [patches_of(TorchReconstructor.load(tmp_path / "wts.h5.zip", o), scan) for o in (CUDA, CPU)]
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


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_no_step_waits_for_the_device(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-014] By the word of the device itself."""
    original = TrainingLoop.train_on

    def watched(self: TrainingLoop, *args: Any, **more: Any) -> None:
        # Libraries begin with waiting, and so does a recording.
        watched = self._plan.clock.step not in (0, WARM_UP_STEPS)
        torch.cuda.set_sync_debug_mode("error" if watched else "default")
        try:
            original(self, *args, **more)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(TrainingLoop, "train_on", watched)
    fit_to(scan, train={"nepochs": 2, "probe_trainable": True, "mae_weight": 1.0}, options={"accelerator": "cuda"})


@pytest.mark.parametrize(
    ("train", "options"),
    [
        ({}, {}),
        ({"n_groups": 7}, {"device_memory_budget_mb": 0, "num_workers": 2}),
        ({"simulate_objects": "mixed", "simulate_probes": "family"}, {}),
        ({"probe_trainable": True, "mae_weight": 1.0, "gradient_clip_algorithm": "value"}, {"deterministic": False}),
        ({}, {"precision": "bf16"}),
    ],
    ids=str,
)
def test_replayed_steps_are_the_steps(
    scan: ScanDataset,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    train: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """[TRAIN-016] A CUDA graph, beside batches of another size and threads that upload the next ones."""
    settings = {"train": {"nepochs": 5, **train}, "options": {"accelerator": "cuda", **options}}
    with caplog.at_level("INFO", logger="ptychopinn"):
        replayed = fit_to(scan, **settings)
    assert "Steps are replayed as a CUDA graph" in caplog.text
    monkeypatch.setattr("ptychopinn_torch.training.make_recorder", lambda device: None)
    launched = fit_to(scan, **settings)
    assert replayed.result.history["loss"] == pytest.approx(launched.result.history["loss"], rel=1e-3)


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


@pytest.mark.parametrize(
    "settings",
    [
        {"synchronise": "on"},
        {"synchronise": "off"},
        {},
        {"memory_budget_mb": 1, "inference_batch_size": 7},
        {"refine": 3},
        {"refine": 3, "predict_overlap": 0.4},
        {"refine": 3, "refine_probe": True},
        {"refine": 3, "refine_probe": True, "refine_positions": True},
        {"refine": 3, "refine_likelihood": "poisson"},
    ],
    ids=str,
)
def test_objects_are_those_of_the_cpu(larger: ScanDataset, settings: dict[str, Any]) -> None:
    """[REC-012] Phases, stitching, the slow phase, and passes with everything that they may change."""
    config = InferConfig(**{"refine": 0, **settings})
    cuda, cpu = (reconstruct(TorchReconstructor.load(MODEL, o), larger, config) for o in (CUDA, CPU))
    assert cuda.synchronised == cpu.synchronised
    agree(cuda, cpu)
    if cpu.refined is not None and cuda.refined is not None:
        assert cuda.refined.passes_kept == cpu.refined.passes_kept > 0


def test_a_dim_scan_is_refined_as_on_the_cpu() -> None:
    """[REC-012] By the likelihood of Poisson counts, judged by patterns that no pass uses."""
    dim = simulate_scan(SimulationConfig(N=32, rows=10, cols=10, seed=2, nphotons=2e3))
    cuda, cpu = (reconstruct(TorchReconstructor.load(MODEL, o), dim, InferConfig(refine=2)) for o in (CUDA, CPU))
    assert cuda.refined is not None
    assert cuda.refined.likelihood == "poisson"
    agree(cuda, cpu)


def test_a_stream_is_that_of_the_cpu(larger: ScanDataset) -> None:
    """[REC-012] Patterns as they come, refined at the end."""
    order = np.random.default_rng(0).permutation(len(larger))
    results = []
    for options in (CUDA, CPU):
        arrivals = [
            Chunk(some, larger.positions[some], np.asarray(larger.patterns[some]), Measurement.COUNTS)
            for some in np.array_split(order, 13)
        ]
        model = TorchReconstructor.load(MODEL, options)
        *_, last = stream(model, arrivals, InferConfig(refine=2), update_s=0.0)
        assert last.result is not None
        results.append(last.result)
    agree(*results)


def test_every_stage_is_that_of_the_cpu(larger: ScanDataset, tmp_path: Path) -> None:
    """[PAR-004] By the command that compares devices."""
    write_scan(tmp_path / "scan.npz", larger)
    found = parity_run(tmp_path / "scan.npz", [MODEL], tmp_path / "out", devices=["cpu", "cuda"], tolerance=1e-3)
    assert found.first is None, found.differences


def test_memory_is_given_back(larger: ScanDataset) -> None:
    """[HARD-022] A second training, inference and refinement in one process leave no more than the first.

    What libraries keep by design is there after the first: plans of cuFFT, and workspaces of cuBLAS and cuBLASLt, which
    are tensors of PyTorch's allocator, one for every stream that ever multiplied (on Hopper 32 MiB and 1 MiB).
    """

    def left() -> int:
        found = fit_to(larger, train={"simulate_objects": "mixed"}, options={"accelerator": "cuda"})
        reconstruct(found.reconstructor, larger, InferConfig(refine=2, refine_probe=True))
        del found
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    first = left()
    assert left() - first < 2**20


def test_a_batch_that_does_not_fit_is_halved(
    on_cuda: Trained, scan: ScanDataset, caplog: pytest.LogCaptureFixture
) -> None:
    """[RECON-002] with the device's own error."""
    expected = on_cuda.patches(scan)
    network = on_cuda.reconstructor.trained_model().network
    forward = network.forward

    def greedy(amplitudes: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        if len(amplitudes) > 6:
            torch.empty(2**50, device="cuda")
        return forward(amplitudes, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "forward", greedy)
        found = on_cuda.patches(scan)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert "continuing with 6" in caplog.text


def agree(cuda: Reconstruction, cpu: Reconstruction) -> None:
    """To 1e-3 of the mean amplitude, positions to 1e-3 of a pixel."""
    assert cuda.frame == cpu.frame
    for found, expected in ((cuda.object, cpu.object), (cuda.probe, cpu.probe)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).mean())
    np.testing.assert_allclose(cuda.positions, cpu.positions, atol=1e-3)
    assert cuda.residual == pytest.approx(cpu.residual, rel=1e-3)
