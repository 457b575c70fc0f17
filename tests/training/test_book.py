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
from ptychopinn.errors import ArchiveError
from ptychopinn.monitor import NULL_MONITOR
from ptychopinn.simulate import simulate_scan
from ptychopinn.training.book import EpochBook
from ptychopinn.training.plan import make_plan
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


def book_in(folder: Path, **config: Any) -> EpochBook:
    scan = simulate_scan(SimulationConfig(N=N, rows=4, cols=4))
    model, settings = ModelConfig(N=N), TrainConfig(nepochs=10**6, checkpoint_every=1, **config)
    plan = make_plan(model, settings, scan, None, scan.probe)
    manifest = Manifest(writer=Writer(ptychopinn="0", backend="numpy"), model=model)
    return EpochBook(
        plan, OneWeight(), CheckpointStore(folder, top_k=1, mode=CheckpointMode.MIN), manifest, NULL_MONITOR, {}
    )


def test_a_history_of_any_length_is_kept(tmp_path: Path) -> None:
    """[TRAIN-005] A small scan and a long max_time: 50,000 epochs, of which some have no figure of some kind."""
    epochs = 50_000
    book = book_in(tmp_path)
    book.history = {name: list(np.arange(1.0, epochs)) for name in ("epoch", "seconds", "learning_rate", "loss")}
    book.history["validation_loss"] = [math.nan, *np.linspace(3, 1 / 3, epochs - 2)]
    book._plan.clock.epoch = epochs - 1
    book.count(0.1, {"nll": 0.1}, 8)
    book.close_epoch([0.25])
    resumed = book_in(tmp_path)
    resumed.resume()
    assert resumed.history.keys() == book.history.keys() == {*book.history, "nll"}
    for name, values in book.history.items():
        assert len(values) == epochs
        np.testing.assert_array_equal(resumed.history[name], values)
        assert type(resumed.history[name][-1]) is float


@pytest.mark.parametrize("history", [{}, {"history/epoch": np.ones(3)}, {"history/loss": np.ones((2, 2))}])
def test_a_checkpoint_without_its_history_is_refused(tmp_path: Path, history: dict[str, AnyArray]) -> None:
    """[TRAIN-005]"""
    book = book_in(tmp_path)
    for loss in (0.2, 0.1):
        book.count(loss, {}, 8)
        book.close_epoch()
    (path,) = tmp_path.iterdir()
    bundle = CheckpointStore(tmp_path, top_k=1, mode=CheckpointMode.MIN).newest()
    assert bundle is not None
    bare = {name: array for name, array in bundle.weights.items() if not name.startswith("history/")}
    whole = {name: np.ones(2) for name in bundle.weights.keys() - bare.keys()} if history else {}
    write_bundle(path, bundle.manifest, {**bare, **whole, **history})
    with pytest.raises(ArchiveError, match=r"history.*2 epochs.*--overwrite"):
        book_in(tmp_path).resume()
