"""The NumPy reconstructor: what `ptychopinn.training.NetworkReconstructor` leaves to a backend."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from ptychopinn.config import Config, ModelConfig, TrainConfig
from ptychopinn.config.execution import asks_for_cuda
from ptychopinn.errors import ConfigError, ResourceError
from ptychopinn.training import Fit, IlluminationArrays, NetworkReconstructor, TrainingPlan
from ptychopinn.training.base import Predict
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray
from ptychopinn_numpy.network import project
from ptychopinn_numpy.options import NumpyOptions
from ptychopinn_numpy.training import FIRST_STEP, Model, StepSearch, model_from_arrays

_MODEL = {"N", "model_type", "gridsize", "group_size", "iterations", "probe_mask"}
_UNUSED_TRAIN = {
    *("learning_rate", "scheduler", "accumulate_grad_batches", "gradient_clip", "gradient_clip_algorithm"),
    *("realspace_weight", "probe_trainable", "intensity_scale_trainable", "simulate_objects"),
}


class NumpyReconstructor(NetworkReconstructor[Model]):
    """Learns the length of a projection; see `ptychopinn.reconstructor.Reconstructor` for the contract."""

    backend = "numpy"
    distribution = "ptychopinn-numpy"
    framework = f"numpy {np.__version__}"
    options_model = NumpyOptions

    def __init__(self, model: ModelConfig, options: Any = None) -> None:
        super().__init__(model, options)
        _refuse(model, set(ModelConfig.model_fields) - _MODEL, ModelConfig())
        _refuse(self._options, {"precision", "num_workers", "threads", "device_memory_budget_mb"}, NumpyOptions())
        if asks_for_cuda(self._options.accelerator):
            raise ResourceError("CUDA was asked for; NumPy computes on the cpu.", "Use --accelerator cpu.")

    @property
    def device(self) -> str:
        """The device in use."""
        return "cpu"

    def _build(self, illumination: IlluminationArrays, seed: int) -> Model:
        return Model(FIRST_STEP, illumination)

    def _to_arrays(self, model: Model) -> dict[str, AnyArray]:
        return model.arrays()

    def _from_arrays(self, arrays: Mapping[str, AnyArray]) -> Model:
        return model_from_arrays(self._config, arrays)

    def _unit_probe(self, model: Model) -> ComplexArray:
        return model.unit_probe

    def _make_fit(self, model: Model, plan: TrainingPlan) -> Fit[Model]:
        _refuse(plan.config, _UNUSED_TRAIN, TrainConfig().resolved(on_gpu=False))
        return StepSearch(model, plan)

    def _predictor(
        self, model: Model, scan_probe: ComplexArray | None, mean_counts: float, good: FloatArray
    ) -> tuple[ComplexArray, Predict]:
        illumination = model.illumination if scan_probe is None else IlluminationArrays(scan_probe, np.zeros(2))
        probe = Model(model.step, illumination).unit_probe

        def predict(counts: FloatArray) -> ComplexArray:
            amplitudes = np.sqrt(counts[:, 0] / np.float32(mean_counts))
            return project(amplitudes, probe, good, model.step, self._config.steps, self._config.patch_size)[0]

        return probe, predict


def _refuse(config: Config, names: Set[str], defaults: Config) -> None:
    """Refuse settings that this backend would ignore."""
    if changed := sorted(name for name in names if getattr(config, name) != getattr(defaults, name)):
        raise ConfigError(f"The NumPy backend does nothing with {', '.join(changed)}.", "Leave it out.")
