"""Training: what is TensorFlow's own; the rest is `backend_suite.training`. Requirements: specs/10-training.md."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from backend_suite.fits import Fit, New, Trained, differs, patches_of, settings_of
from backend_suite.training import *  # noqa: F403

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import TrainingError
from ptychopinn.training import RunLogger, TrainingState
from ptychopinn.training.objective import Objective
from ptychopinn.training.readings import ReadingClock
from ptychopinn.training.sources import Batch
from ptychopinn_tf.training import TrainingLoop

EVERY_TERM = {"mae_weight": 0.5, "realspace_weight": 0.5, "realspace_mae_weight": 0.5, "simulate_objects": "mixed"}


def test_nobody_elses_random_numbers_are_used_or_moved(fit: Fit, base: Trained) -> None:
    tf.random.set_seed(99)
    expected = tf.random.uniform((3,)).numpy()
    tf.random.set_seed(99)
    np.random.seed(99)  # noqa: NPY002 - the old global state, which is not ours
    state = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    assert not differs(fit(), base)
    np.testing.assert_array_equal(tf.random.uniform((3,)).numpy(), expected)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("wanted", [True, False])
def test_it_computes_deterministically_if_asked(fit: Fit, monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    """[REC-004] And in full float32; afterwards all is as it was."""
    from tensorflow.python.framework import config

    seen: list[tuple[bool, bool]] = []
    original = TrainingState.record

    def spy(self: TrainingState, *args: Any) -> None:
        seen.append((config.is_op_determinism_enabled(), config.tensor_float_32_execution_enabled()))
        original(self, *args)

    monkeypatch.setattr(TrainingState, "record", spy)
    fit(options={"deterministic": wanted})
    assert set(seen) == {(wanted, False)}
    assert not config.is_op_determinism_enabled()
    assert config.tensor_float_32_execution_enabled()


def test_a_training_is_traced_once(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-017] A smaller batch or another epoch compiles nothing anew; validation is one function more."""
    traced: list[Objective] = []
    original = Objective.__call__

    def spy(self: Objective, *args: Any) -> Any:
        traced.append(self)
        return original(self, *args)

    monkeypatch.setattr(Objective, "__call__", spy)
    fit(train={"n_groups": 5, "nepochs": 3, **EVERY_TERM})
    assert len(traced) == 1
    fit(train={"n_groups": 5, "nepochs": 2, "validation_fraction": 0.3})
    assert len(traced) == len(set(map(id, traced))) == 3


def test_compiled_by_xla_it_trains_the_same(fit: Fit, scan: ScanDataset) -> None:
    """With every term, the probe free, a smaller last batch, and validation."""
    train = {**EVERY_TERM, "probe_trainable": True, "n_groups": 5, "validation_fraction": 0.3}
    plain, compiled = (fit(train=train, options={"xla": xla}) for xla in (False, True))
    for name in plain.result.history.keys() - {"seconds"}:
        assert compiled.result.history[name] == pytest.approx(plain.result.history[name], rel=1e-4), name
    np.testing.assert_allclose(compiled.patches(scan), plain.patches(scan), atol=1e-3)


def test_weights_that_are_not_finite_are_never_the_model(
    new: New, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[TRAIN-006] A gradient can break before the loss does: then the average is broken too; an older one is kept."""
    original = TrainingLoop.run

    def breaking(self: TrainingLoop, state: TrainingState, logger: RunLogger) -> None:
        after = state.after_batch

        def break_weights(*args: int) -> None:
            if self._plan.clock.step == 6:
                for model in (self._model, self._average):
                    bias = model.network.head[0].bias
                    bias.assign(math.nan * bias)
            after(*args)

        monkeypatch.setattr(state, "after_batch", break_weights)
        original(self, state, logger)

    monkeypatch.setattr(TrainingLoop, "run", breaking)
    made = new()
    with pytest.raises(TrainingError):
        made.train(scan, settings_of({"nepochs": 3}))
    assert np.isfinite(patches_of(made, scan)).all()


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("every_step", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_that_is_not_finite_makes_no_step(
    new: New, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, what: str, every_step: bool, accumulate: int
) -> None:
    """[TRAIN-006] [TRAIN-014] Nor is it noticed before the next reading, which names it."""
    weights: list[np.ndarray] = []
    original = TrainingLoop.train_on

    def poisoned(self: TrainingLoop, batch: Batch, **more: Any) -> None:
        if len(weights) == 2:  # no count is infinite where there is one, but the loss's slope is
            bad = math.nan if what == "loss" else 1e38
            batch = replace(batch, tensors={**batch.tensors, "member_share": batch.tensors["member_share"] * bad})
        original(self, batch, **more)
        weights.append(np.concatenate([v.numpy().ravel() for v in self._model.variables().values()]))

    monkeypatch.setattr(TrainingLoop, "train_on", poisoned)
    monkeypatch.setattr(ReadingClock, "due", lambda self: every_step)
    made = new()
    settings = {"nepochs": 3, "detector_offset": "none", "accumulate_grad_batches": accumulate}
    step = 2 if accumulate == 1 else 1
    message = (
        f"The loss is nan at step {step}" if what == "loss" else f"gradient of the loss is not finite at step {step}"
    )
    with pytest.raises(TrainingError, match=message):
        made.train(scan, settings_of(settings))
    noticed = 3 if every_step and (what == "loss" or accumulate == 1) else 4  # of four batches an epoch
    assert len(weights) == noticed
    if accumulate == 1:
        assert not np.array_equal(weights[0], weights[1])
        np.testing.assert_array_equal(weights[1], weights[2])
    else:
        assert not np.array_equal(weights[0], weights[1])
        np.testing.assert_array_equal(weights[1], weights[-1])
    assert np.isfinite(patches_of(made, scan)).all()


@pytest.mark.parametrize("options", [{"device_memory_budget_mb": 9}, {}, {"xla": True}], ids=str)
def test_nothing_in_a_step_waits_for_the_device(
    new: New, scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """[TRAIN-014] No tensor is read by the host but for the readings."""
    reads: list[str] = []
    inside = False
    tensor_type = type(tf.constant(0.0))
    for name in ("numpy", "__float__", "__int__", "__bool__", "__array__", "__index__", "__len__"):
        method = getattr(tensor_type, name)

        def counted(self: Any, *args: Any, _method: Any = method, _name: str = name, **more: Any) -> Any:
            if inside:
                reads.append(_name)
            return _method(self, *args, **more)

        monkeypatch.setattr(tensor_type, name, counted)
    original = TrainingLoop.train_on

    def watched(self: TrainingLoop, batch: Batch, **more: Any) -> None:
        nonlocal inside
        inside = self._plan.clock.step > 0  # the first is traced
        try:
            original(self, batch, **more)
        finally:
            inside = False

    monkeypatch.setattr(TrainingLoop, "train_on", watched)
    new(options=options).train(scan, settings_of({"nepochs": 2, "probe_trainable": True}))
    assert reads == []
    inside = True
    float(tf.constant(1.0))
    assert reads != []
