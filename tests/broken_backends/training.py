"""Reconstructors that train in a wrong way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy_backend import NumpyReconstructor
from ptychopinn_numpy.training import Model

from broken_backends.prediction import Deaf
from broken_backends.registry import broken
from ptychopinn.config import SimulationConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import Cancelled
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstructor import (
    TrainResult,
)
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import AnyArray, StrPath


class Mistaught(NumpyReconstructor):
    """Trains otherwise than it was asked to, or tells it otherwise."""

    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return data, config

    def after(self, result: TrainResult) -> TrainResult:
        return result

    def train(
        self,
        data: ScanDataset,
        config: TrainConfig,
        *,
        validation: ScanDataset | None = None,
        checkpoint_dir: StrPath | None = None,
        monitor: Monitor = NULL_MONITOR,
    ) -> TrainResult:
        rest: dict[str, Any] = {"validation": validation, "checkpoint_dir": checkpoint_dir, "monitor": monitor}
        data, config = self.before(data, config, rest)
        return self.after(super().train(data, config, **rest))


@broken("test_the_loss_falls")
class NeverLearns(Mistaught):
    def after(self, result: TrainResult) -> TrainResult:
        losses = result.history["loss"]
        return replace(result, history={**result.history, "loss": losses[:1] * len(losses)})


@broken("test_the_history_has_its_columns")
class ForgetsTheTime(Mistaught):
    def after(self, result: TrainResult) -> TrainResult:
        if not result.history["epoch"]:
            return result
        return replace(result, history={k: v for k, v in result.history.items() if k != "seconds"})


@broken("test_the_same_training_gives_the_same_model")
class IsNotSeeded(Mistaught):
    trainings: ClassVar[Iterator[int]] = itertools.count(1)

    def after(self, result: TrainResult) -> TrainResult:
        assert self._model is not None
        self._model = replace(self._model, step=self._model.step * (1 + 1e-6 * next(self.trainings)))
        return result


@broken("test_two_instances_do_not_disturb_each_other")
class SharesItsModel(Mistaught):
    newest: ClassVar[list[Model]] = []

    def after(self, result: TrainResult) -> TrainResult:
        assert self._model is not None
        self.newest[:] = [self._model]
        return result

    def trained_model(self) -> Model:
        own = super().trained_model()
        return next((m for m in self.newest if m.illumination.probe.shape == own.illumination.probe.shape), own)

    def _from_arrays(self, arrays: Mapping[str, AnyArray]) -> Model:
        self.newest[:] = [super()._from_arrays(arrays)]
        return self.newest[0]


@broken("test_a_cancelled_training_can_be_used")
class TrainsToTheEnd(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        if not rest["monitor"].cancelled:
            rest["monitor"] = Deaf(rest["monitor"])
        return data, config


@broken("test_cancelled_before_it_begins_it_can_be_used")
class WillNotBeginCancelled(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        if rest["monitor"].cancelled:
            raise Cancelled("The training was cancelled.")
        return data, config


@broken("test_training_tells_how_far_it_is")
class CountsDown(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        other: Monitor = rest["monitor"]

        class Down(Monitor):
            def report(self, stage: str, done: int, total: int = 0, figures: Mapping[str, float] | None = None) -> None:
                other.report(stage, total - done, total, figures)

            @property
            def cancelled(self) -> bool:
                return other.cancelled

        rest["monitor"] = Down()
        return data, config


@broken("test_a_killed_training_is_resumed")
class BeginsAnew(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        rest["checkpoint_dir"] = None
        return data, config


@broken("test_a_validation_is_told_of")
class ValidatesNothing(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        rest["validation"] = None
        return data, config


@broken("test_the_scan_is_left_as_it_was")
class ChangesTheScan(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        data.scan_index[...] += 1
        return data, config


@broken("test_what_stands_at_bad_pixels_does_not_matter")
class SeesBadPixels(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return replace(data, bad_pixels=np.zeros_like(data.bad_pixels)), config


@broken("test_what_stands_at_bad_values_does_not_matter")
class SeesBadValues(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return replace(data, bad_values=None), config


@broken("test_a_placeholder_is_no_known_object")
class BelievesPlaceholders(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        guess = data.object_guess
        if guess is None or np.ptp(np.abs(guess)) == 0:
            noise = np.random.default_rng(0).random((200, 200)) + 0.5
            data = replace(data, object_guess=noise.astype(np.complex64))
        return data, config


@broken("test_an_empty_scan_is_refused")
class TrainsOnNothing(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return (data, config) if len(data) else (simulate_scan(SimulationConfig(N=32, rows=3, cols=3)), config)
