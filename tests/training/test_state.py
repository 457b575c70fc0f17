"""The record of a training and its checkpoints. What a resumed training does is in `backend_suite.checkpoint`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptychopinn.bundle import Manifest, Writer, write_bundle
from ptychopinn.checkpoints import CheckpointStore
from ptychopinn.config import ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.train import CheckpointMode
from ptychopinn.cores import StarvationWatch
from ptychopinn.errors import ArchiveError, TrainingError
from ptychopinn.monitor import NULL_MONITOR
from ptychopinn.reconstructor import TrainStatus
from ptychopinn.simulate import simulate_scan
from ptychopinn.training.plan import make_plan
from ptychopinn.training.state import LossReading, TrainingState, read_step
from ptychopinn.typing import AnyArray

N = 32


class OneWeight:
    """A training of one number."""

    def averaged(self) -> dict[str, AnyArray]:
        return {"weight": np.ones(1, np.float32)}

    def state(self) -> dict[str, AnyArray]:
        return {"model/weight": np.ones(1, np.float32)}

    def restore(self, arrays: Mapping[str, AnyArray]) -> None:
        assert "model/weight" in arrays


def state_in(folder: Path, **config: Any) -> TrainingState:
    scan = simulate_scan(SimulationConfig(N=N, rows=4, cols=4))
    model, settings = ModelConfig(N=N), TrainConfig(nepochs=10**6, checkpoint_every=1, **config).resolved(on_gpu=False)
    plan = make_plan(model, settings, scan, None, scan.probe)
    manifest = Manifest(writer=Writer(ptychopinn="0", backend="numpy"), model=model)
    return TrainingState(
        plan, OneWeight(), CheckpointStore(folder, top_k=1, mode=CheckpointMode.MIN), manifest, NULL_MONITOR, {}
    )


def test_a_history_of_any_length_is_kept(tmp_path: Path) -> None:
    """[TRAIN-005] A small scan and a long max_time: 50,000 epochs, of which some have no figure of some kind."""
    epochs = 50_000
    state = state_in(tmp_path)
    state.history = {name: list(np.arange(1.0, epochs)) for name in ("epoch", "seconds", "learning_rate", "loss")}
    state.history["validation_loss"] = [math.nan, *np.linspace(3, 1 / 3, epochs - 2)]
    state._plan.clock.epoch = epochs - 1
    state.record(LossReading({"loss": 0.1, "nll": 0.1}, 1, 0.1))
    state.close_epoch([0.25])
    resumed = state_in(tmp_path)
    resumed.resume()
    assert resumed.history.keys() == state.history.keys() == {*state.history, "nll"}
    for name, values in state.history.items():
        assert len(values) == epochs
        np.testing.assert_array_equal(resumed.history[name], values)
        assert type(resumed.history[name][-1]) is float


@pytest.mark.parametrize("history", [{}, {"history/epoch": np.ones(3)}, {"history/loss": np.ones((2, 2))}])
def test_a_checkpoint_without_its_history_is_refused(tmp_path: Path, history: dict[str, AnyArray]) -> None:
    """[TRAIN-005]"""
    state = state_in(tmp_path)
    for loss in (0.2, 0.1):
        state.record(LossReading({"loss": loss}, 1, loss))
        state.close_epoch()
    (path,) = tmp_path.iterdir()
    bundle = CheckpointStore(tmp_path, top_k=1, mode=CheckpointMode.MIN).newest()
    assert bundle is not None
    bare = {name: array for name, array in bundle.weights.items() if not name.startswith("history/")}
    whole = {name: np.ones(2) for name in bundle.weights.keys() - bare.keys()} if history else {}
    write_bundle(path, bundle.manifest, {**bare, **whole, **history})
    with pytest.raises(ArchiveError, match=r"history.*2 epochs.*--overwrite"):
        state_in(tmp_path).resume()


def test_losses_may_come_some_together(tmp_path: Path) -> None:
    """[TRAIN-014] The history is the same, and what is reported is the newest that is known."""
    rows = []
    for together in (False, True):
        state = state_in(tmp_path / str(together))
        losses = (0.5, 0.25, 0.75)
        for number, loss in enumerate(losses):
            if not together:
                state.record(read_step(loss, {"nll": 2 * loss}, number))
            state.after_batch(number, 8)
        if together:
            state.record(LossReading({"loss": sum(losses), "nll": 2 * sum(losses)}, len(losses), losses[-1]))
        rows.append(state.close_epoch())
        assert state.patterns_seen == 24
    assert {name: rows[0][name] for name in ("loss", "nll", "learning_rate")} == {
        name: rows[1][name] for name in ("loss", "nll", "learning_rate")
    }


def test_the_clocks_steps_are_those_of_the_optimizer(tmp_path: Path) -> None:
    """[TRAIN-014] Every second batch, and the last of an epoch."""
    state = state_in(tmp_path, accumulate_grad_batches=2, n_groups=5, batch_size=1)
    steps = []
    for number in range(5):
        state.after_batch(number, 8)
        steps.append(state._plan.clock.step)
    assert steps == [0, 1, 1, 2, 3]


@pytest.mark.parametrize(("loss", "words"), [(math.nan, "The loss is nan"), (0.5, "The gradient of the loss is not")])
def test_what_is_not_finite_ends_it(tmp_path: Path, loss: float, words: str) -> None:
    """[TRAIN-006]"""
    with pytest.raises(TrainingError, match=f"{words}.* at step 7 of epoch 0"):
        state_in(tmp_path).record(LossReading({"loss": loss}, 3, loss, not_finite=(7, loss)))
    with pytest.raises(TrainingError, match="The loss is inf at step 2"):
        state_in(tmp_path).record(read_step(math.inf, {}, 2))


def test_time_that_does_not_suffice_for_an_epoch_is_said(tmp_path: Path) -> None:
    """[RUN-013] With the time of an epoch; a later epoch may be incomplete."""
    state = state_in(tmp_path, max_time=1e-9, batch_size=1)
    state.record(read_step(0.1, {}, 1))
    state.after_batch(0, 4)
    assert state.status is TrainStatus.TIMED_OUT
    (warning,) = state.warnings
    assert "after 1 of " in warning
    assert "An epoch takes about" in warning
    later = state_in(tmp_path / "later", max_time=1e-9, batch_size=1)
    later._plan.clock.epoch = 1
    later.after_batch(0, 4)
    assert later.stop
    assert later.warnings == []


def test_a_training_that_starves_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[RUN-012]"""

    class Starving(StarvationWatch):
        def notice(self) -> str | None:
            return "It starves."

    state = state_in(tmp_path)
    state.watch = Starving()
    state.after_batch(0, 4)
    assert caplog.messages == ["It starves."]
