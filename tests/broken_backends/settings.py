"""Reconstructors that ignore or refuse settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy_backend import NumpyReconstructor
from ptychopinn_numpy.training import Model, StepSearch

from broken_backends.registry import broken
from broken_backends.training import Mistaught
from ptychopinn.config import ModelConfig, TrainConfig
from ptychopinn.config.train import SimulateObjects
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ConfigError, UsageError
from ptychopinn.reconstructor import (
    TrainResult,
)
from ptychopinn.training import TrainingPlan


@broken("test_what_it_cannot_do_is_refused")
class IgnoresSimulatedObjects(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return data, config.model_copy(update={"simulate_objects": SimulateObjects.OFF})


@broken("test_a_training_setting_acts_or_is_refused")
class IgnoresASetting(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return data, config.model_copy(update={"weight_averaging": 0.99})


@broken("test_a_model_setting_acts_or_is_refused")
class IgnoresAModelSetting(NumpyReconstructor):
    def __init__(self, model: ModelConfig, options: Any = None) -> None:
        super().__init__(model.model_copy(update={"n_filters_scale": None}), options)
        self._config = model


class ActsOnTheOther(Mistaught):
    """What is changed with a setting acts; the setting itself does not."""

    acts = False

    def after(self, result: TrainResult) -> TrainResult:
        assert self._model is not None
        if self.acts:
            self._model = replace(self._model, step=1.01 * self._model.step)
        return result


@broken("test_a_training_setting_acts_or_is_refused")
class IgnoresNllWeight(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        return data, config.model_copy(update={"nll_weight": 1.0})


@broken("test_a_training_setting_acts_or_is_refused")
class IgnoresGradientClipAlgorithm(ActsOnTheOther):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        self.acts = config.gradient_clip is not None
        default = TrainConfig()
        names = ("gradient_clip", "gradient_clip_algorithm")
        return data, config.model_copy(update={name: getattr(default, name) for name in names})


@broken("test_a_training_setting_acts_or_is_refused")
class IgnoresSimulateProbes(ActsOnTheOther):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        self.acts = config.simulate_objects is not SimulateObjects.OFF
        default = TrainConfig()
        names = ("simulate_objects", "simulate_probes")
        return data, config.model_copy(update={name: getattr(default, name) for name in names})


@broken("test_a_model_setting_acts_or_is_refused")
class IgnoresProbeBig(ActsOnTheOther):
    def __init__(self, model: ModelConfig, options: Any = None) -> None:
        default = ModelConfig()
        names = ("architecture", "probe_big")
        super().__init__(model.model_copy(update={name: getattr(default, name) for name in names}), options)
        self.acts = model.architecture is not default.architecture


@broken("test_a_training_setting_acts_or_is_refused")
class RefusesTheSeed(Mistaught):
    def before(self, data: ScanDataset, config: TrainConfig, rest: dict[str, Any]) -> tuple[ScanDataset, TrainConfig]:
        if config.seed:
            raise ConfigError("There is no chance here.", "Leave the seed out.")
        return data, config


@broken("test_it_trains_each_model_type")
class ClaimsTooMuch(NumpyReconstructor):
    def _make_fit(self, model: Model, plan: TrainingPlan) -> StepSearch:
        if plan.weights.realspace_mae:
            raise UsageError("Known patches are of no use.")
        return super()._make_fit(model, plan)


@broken("test_it_trains_on_every_size")
class IsTooNarrow(NumpyReconstructor):
    def _make_fit(self, model: Model, plan: TrainingPlan) -> StepSearch:
        if self._config.N > 32:
            raise MemoryError
        return super()._make_fit(model, plan)
