"""The training loop: every batch tries a longer and a shorter step, and takes the one with the smallest loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptychopinn.forward import detector_ramp
from ptychopinn.training import (
    IlluminationArrays,
    RunLogger,
    ScanBatches,
    TrainingPlan,
    TrainingState,
    illumination_from_tensors,
    illumination_tensors,
    read_step,
)
from ptychopinn.training.losses import neighbour_products, patch_weights, without_marks
from ptychopinn.training.objective import offset_step
from ptychopinn.training.optimizer import ema_decay
from ptychopinn.training.tensors import network_tensors
from ptychopinn.typing import AnyArray, ComplexArray
from ptychopinn_numpy import operations
from ptychopinn_numpy.network import loss_terms, project

FIRST_STEP = 0.2
_FACTORS = (1.0, 1.4, 0.7)  # tried at every step


@dataclass(frozen=True, eq=False)
class Model:
    """All that an archive holds: the network's one weight, and the illumination it was trained with."""

    step: float
    illumination: IlluminationArrays

    @property
    def unit_probe(self) -> ComplexArray:
        """(modes, N, N) complex64 in root mean counts, the detector's offset in it."""
        illumination = self.illumination
        ramp = detector_ramp(illumination.offset_px, illumination.probe.shape[-1])
        return (illumination.probe * ramp * math.exp(illumination.log_intensity / 2)).astype(np.complex64)

    def arrays(self) -> dict[str, AnyArray]:
        """The tensors of an archive, by their names."""
        return {"network/step": np.array([self.step], np.float32), **illumination_tensors(self.illumination)}


def model_from_arrays(config: Any, arrays: Mapping[str, AnyArray]) -> Model:
    """The inverse of `Model.arrays`; raises ArchiveError if they do not fit."""
    network = network_tensors(arrays, {"step": (1,)})
    return Model(float(network["step"][0]), illumination_from_tensors(config, arrays))


class StepSearch:
    """A training under way (`ptychopinn.training.Fit`)."""

    def __init__(self, model: Model, plan: TrainingPlan) -> None:
        self._model, self._average, self._plan, self._steps = model, model, plan, 0

    def averaged(self) -> dict[str, AnyArray]:
        """The weights that would be the model if the training ended now."""
        return self._average.arrays()

    def state(self) -> dict[str, AnyArray]:
        """Everything that a resumed training needs."""
        both = {"model": self._model, "averaged": self._average}
        named = {f"{group}/{name}": array for group, m in both.items() for name, array in m.arrays().items()}
        return {**named, "averaged/steps": np.array([self._steps])}

    def restore(self, arrays: Mapping[str, AnyArray]) -> None:
        """Put `state` back."""

        def group(name: str) -> Model:
            prefix = f"{name}/"
            held = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            return model_from_arrays(self._plan.model, held)

        self._model, self._average = group("model"), group("averaged")
        self._steps = int(arrays["averaged/steps"][0])

    def model(self, averaged: Mapping[str, AnyArray]) -> Model:
        """A model with these weights."""
        return model_from_arrays(self._plan.model, averaged)

    def run(self, state: TrainingState, logger: RunLogger) -> None:
        """Train until `state` says stop or the epochs are done."""
        clock, plan = self._plan.clock, self._plan
        while not (state.stop or clock.out_of_epochs):
            for number, batch in enumerate(plan.training.batches(clock.epoch)):
                models = [replace(self._model, step=self._model.step * factor) for factor in _FACTORS]
                tried = [self._loss(model, plan.training, batch) for model in models]
                loss, parts, _ = tried[0]
                state.record(read_step(loss, parts, clock.step))
                best = int(np.argmin([loss for loss, _, _ in tried]))
                self._take_step(models[best].step, tried[best][2])
                state.after_batch(number, batch["counts"].shape[0] * batch["counts"].shape[1])
                if state.stop:
                    break
            held = plan.validation
            judged = held is not None and not state.cancelled
            losses = [self._loss(self._average, held, b)[0] for b in held.batches(0)] if judged and held else []
            logger.log(state.close_epoch(losses), clock.step)

    def _loss(
        self, model: Model, scan: ScanBatches, batch: Mapping[str, Any]
    ) -> tuple[float, dict[str, float], ComplexArray]:
        counts, mean, N = batch["counts"], scan.scaling.mean_counts, self._plan.model.N  # noqa: N806
        counts, good = without_marks(operations, counts.reshape(-1, N, N), scan.good)
        config = self._plan.model
        patches, expected = project(
            np.sqrt(counts / np.float32(mean)), model.unit_probe, good, model.step, config.steps, config.patch_size
        )
        weights = self._plan.weights
        factors = {"nll": weights.nll, "mae": weights.mae, "realspace_mae": weights.realspace_mae}
        terms = loss_terms(batch, patches, expected * np.float32(mean), good, model.unit_probe, mean)
        parts = {name: value for name, value in terms.items() if factors[name]}
        return sum(factors[name] * value for name, value in parts.items()), parts, patches

    def _take_step(self, step: float, patches: ComplexArray) -> None:
        illumination = self._model.illumination
        if self._plan.follow_offset:  # an offset of the detector shows as a ramp of the patches
            weights = patch_weights(operations, self._model.unit_probe, patches.shape[-1])
            products = neighbour_products(operations, patches, weights)
            moved = illumination.offset_px + offset_step(operations, products, self._plan.model.N)
            illumination = replace(illumination, offset_px=moved)
        self._model = Model(step, illumination)
        kept = ema_decay(self._plan.config.weight_averaging, self._steps)
        self._average = Model(kept * self._average.step + (1 - kept) * step, illumination)
        self._steps += 1
