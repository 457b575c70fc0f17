"""Steps that are recorded and replayed, seen with CPU tensors. Requirements: specs/10-training.md."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
import torch
from backend_suite.fits import Fit, New, Trained, settings_of
from recorded_operations import OperationRecorder
from test_device_path import KINDS

from ptychopinn.config import SimulationConfig
from ptychopinn.config.infer import Background, Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import TrainingError
from ptychopinn.geometry import Canvas, Frame
from ptychopinn.refinement import Refinement, RefineOptions, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan
from ptychopinn.training.sources import Batch
from ptychopinn.typing import AnyArray
from ptychopinn_torch import arrays, training
from ptychopinn_torch.arrays import TorchLibrary
from ptychopinn_torch.captured import WARM_UP_STEPS, CapturedStep, make_recorder

RESIDENT = {"device_memory_budget_mb": 256}
Recorders = Callable[[Exception | None], list[OperationRecorder]]


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> Recorders:
    """From now on trainings and passes record; a list of what records each."""

    def use(error: Exception | None = None) -> list[OperationRecorder]:
        made: list[OperationRecorder] = []

        def make(device: torch.device) -> OperationRecorder:
            made.append(OperationRecorder(error))
            return made[-1]

        monkeypatch.setattr(training, "make_recorder", make)
        monkeypatch.setattr(arrays, "make_recorder", make)
        return made

    return use


def agree(found: Trained, expected: Trained) -> None:
    """To rounding: the same operations, on tensors that lie elsewhere."""
    assert found.result.history.keys() == expected.result.history.keys()
    for name in expected.result.history.keys() - {"seconds"}:
        np.testing.assert_allclose(found.result.history[name], expected.result.history[name], rtol=1e-6, err_msg=name)
    learned = expected.arrays()
    for name, array in found.arrays().items():
        np.testing.assert_allclose(array, learned[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"accumulated"}))
@pytest.mark.parametrize("options", [RESIDENT, {}], ids=["resident", "streamed"])
def test_replayed_steps_are_the_steps(
    fit: Fit, off_centre: ScanDataset, recorders: Recorders, kind: str, options: dict[str, Any]
) -> None:
    """[TRAIN-016] Learning rate, average, offset and step counts go on; a smaller last batch is computed without it."""
    settings = {**KINDS[kind], "data": off_centre, "options": options}
    settings["train"] = {"n_groups": 7, "nepochs": 3, **KINDS[kind].get("train", {})}
    expected = fit(**settings)
    made = recorders(None)
    agree(fit(**settings), expected)
    (recorder,) = made
    # Batches of 2, 2, 2 and 1 groups; resident ones are filled up, and simulated ones alone are of one size.
    small = 0 if options or kind == "simulated" else 3
    assert (recorder.recorded, recorder.replayed) == (1, 12 - WARM_UP_STEPS - small)


def test_accumulated_gradients_are_not_recorded(fit: Fit, recorders: Recorders) -> None:
    """[TRAIN-016] A step on several batches is none on tensors alone."""
    settings: dict[str, Any] = {"train": {"nepochs": 2, "accumulate_grad_batches": 2}}
    expected = fit(**settings)
    made = recorders(None)
    agree(fit(**settings), expected)
    assert [recorder.recorded for recorder in made] == [0]


def test_validation_and_stopping_are_those_of_other_trainings(
    fit: Fit, recorders: Recorders, scan: ScanDataset
) -> None:
    """[TRAIN-016] Weights are read between replayed steps."""
    settings: dict[str, Any] = {"train": {"nepochs": 4, "validation_fraction": 0.3, "probe_trainable": True}}
    expected = fit(**settings)
    made = recorders(None)
    agree(fit(**settings), expected)
    assert made[0].replayed > 0


@pytest.mark.parametrize(
    "error", [RuntimeError("operation not permitted when stream is capturing"), torch.OutOfMemoryError("full")]
)
def test_what_cannot_be_recorded_is_computed(
    fit: Fit, recorders: Recorders, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """[TRAIN-016] With one line in the log, and as if nothing had been tried."""
    settings: dict[str, Any] = {"train": {"nepochs": 3, "probe_trainable": True}}
    expected = fit(**settings)
    made = recorders(error)
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        agree(fit(**settings), expected)
    assert [(recorder.recorded, recorder.replayed) for recorder in made] == [(1, 0)]
    assert [record.message for record in caplog.records if "CUDA graph" in record.message] == [
        f"Steps are not recorded as a CUDA graph, and take longer: {error}"
    ]


def test_a_replayed_step_that_is_not_finite_is_none(
    new: New, scan: ScanDataset, recorders: Recorders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[TRAIN-006] [TRAIN-016] It is named, and moves no weight."""
    made = recorders(None)
    weights: list[torch.Tensor] = []
    original = training.TrainingLoop.train_on

    def poisoned(self: training.TrainingLoop, batch: Batch, **more: Any) -> None:
        if len(weights) == 5:
            batch = replace(batch, tensors={**batch.tensors, "counts": batch.tensors["counts"] * math.nan})
        original(self, batch, **more)
        weights.append(torch.cat([p.detach().reshape(-1) for p in self._model.state_dict().values()]))

    monkeypatch.setattr(training.TrainingLoop, "train_on", poisoned)
    with pytest.raises(TrainingError, match="The loss is nan at step 5"):
        new().train(scan, settings_of({"nepochs": 3}))
    assert made[0].replayed == 3
    assert not torch.equal(weights[3], weights[4])
    assert torch.equal(weights[4], weights[5])


def test_other_errors_are_raised(fit: Fit, recorders: Recorders) -> None:
    recorders(ValueError("a defect"))
    with pytest.raises(ValueError, match="a defect"):
        fit(train={"nepochs": 3})


def test_batches_in_parts_are_not_recorded(
    fit: Fit, recorders: Recorders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[TRAIN-016] [HARD-021] A recorded step makes room when memory is short."""
    settings: dict[str, Any] = {"train": {"nepochs": 3, "n_groups": 8}}
    expected = fit(**settings)
    made = recorders(None)
    original, calls = training.BatchLoss.forward, 0

    def limited(self: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2 and len(batch["counts"]) > 1:
            raise torch.OutOfMemoryError("full")
        return original(self, batch)

    monkeypatch.setattr(training.BatchLoss, "forward", limited)
    found = fit(**settings)
    assert "computed in 2 parts" in caplog.text
    assert [recorder.recorded for recorder in made] == [0]
    for name, array in found.arrays().items():
        np.testing.assert_allclose(array, expected.arrays()[name], atol=2e-3, err_msg=name)


def test_a_resumed_training_records_anew(fit: Fit, recorders: Recorders, tmp_path: Any) -> None:
    """[TRAIN-005] [TRAIN-016] The optimizer's tensors are others after a checkpoint was read."""
    whole = fit(train={"nepochs": 4, "checkpoint_every": 1})
    made = recorders(None)
    fit(train={"nepochs": 2, "checkpoint_every": 1, "max_time": None}, checkpoint_dir=tmp_path)
    resumed = fit(train={"nepochs": 4, "checkpoint_every": 1}, checkpoint_dir=tmp_path)
    assert [recorder.replayed > 0 for recorder in made if recorder.warmed] == [True, True]
    assert len(resumed.result.history["loss"]) == len(whole.result.history["loss"]) == 4


# Passes


def refuse_while_recording(
    upload: Callable[[AnyArray], torch.Tensor], recorders: list[OperationRecorder]
) -> Callable[[AnyArray], torch.Tensor]:
    """As a card does, which records no copy from memory that is not page-locked."""

    def from_host(array: AnyArray) -> torch.Tensor:
        assert not any(recorder.recording for recorder in recorders), "an upload is recorded"
        return upload(array)

    return from_host


@pytest.mark.parametrize(
    "free",
    [
        {},
        {"update_probe": True, "update_positions": True},
        {"update_probe": True, "variation_modes": 2},
        {"update_flux": True, "update_background": Background.FREE, "likelihood": Likelihood.POISSON},
    ],
    ids=str,
)
def test_replayed_passes_are_the_passes(
    recorders: Recorders, monkeypatch: pytest.MonkeyPatch, free: dict[str, Any]
) -> None:
    """[ARR-010] Steps of the schedule, probe, positions, flux and background go on; a last, small batch is computed."""
    scan = simulate_scan(SimulationConfig(N=32, rows=15, cols=13, seed=2))
    library = TorchLibrary(torch.device("cpu"), deterministic=True)

    def passes() -> Refinement:
        frame, model = Frame.around(scan.positions, scan.N), ScanModel(library.from_host(scan.probe), scan.positions)
        start = Canvas(library.cast(library.from_host(np.ones(frame.shape)), "complex64"), frame, library)
        return refine(Patterns(scan, library), model, start, RefineOptions(3, **free))

    computed = passes()
    made = recorders(None)
    monkeypatch.setattr(library, "from_host", refuse_while_recording(library.from_host, made))
    replayed = passes()
    assert made[0].replayed > 40
    for name in ("object", "model.probe", "model.positions", "model.flux", "model.background"):
        found, expected = (attrgetter(name)(result) for result in (replayed, computed))
        if expected is not None:
            expected = np.asarray(expected)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).mean(), err_msg=name)


# The rule itself


def test_shapes_and_dtypes_decide() -> None:
    """[TRAIN-016] Each is warmed up; the first that comes often enough is recorded, and no other."""
    recorder, total = OperationRecorder(), torch.zeros(1)
    captured: CapturedStep[torch.Tensor] = CapturedStep(recorder)

    def step(batch: Any) -> torch.Tensor:
        total.add_(batch["x"].sum())
        return total * 2

    def take(size: int, dtype: torch.dtype = torch.float32) -> float:
        batch = {"x": torch.ones(size, dtype=dtype)}
        return float(captured(batch, lambda: step(batch), step))

    sizes = [3, 3, 2, 3, 3, 2, 3, 2, 2]
    assert [take(size) for size in sizes] == (2 * np.cumsum(sizes)).tolist()
    assert (recorder.warmed, recorder.recorded, recorder.replayed) == (WARM_UP_STEPS + 1, 1, 2)
    take(3, torch.float64)
    assert recorder.replayed == 2


def test_a_number_of_python_would_be_noticed() -> None:
    """What the tests above would miss, they would miss here: a replay repeats the number that was recorded."""
    captured: CapturedStep[torch.Tensor] = CapturedStep(OperationRecorder())
    rate, batch = 0.0, {"x": torch.ones(2)}
    found = []
    for number in range(WARM_UP_STEPS + 3):
        rate = float(number)
        found.append(float(captured(batch, lambda: batch["x"][0] * rate, lambda given: given["x"][0] * rate)))  # noqa: B023
    assert found == [0, 1, 2, 3, 3, 3]


def test_without_a_recorder_nothing_is_recorded() -> None:
    captured: CapturedStep[int] = CapturedStep(None)
    assert [captured({}, lambda: 5, lambda batch: 7) for _ in range(6)] == [5] * 6


def test_a_cpu_records_nothing() -> None:
    assert make_recorder(torch.device("cpu")) is None
