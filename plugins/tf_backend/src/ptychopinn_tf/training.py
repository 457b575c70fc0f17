"""The training loop: one function for the gradient of a batch, one for the step that it makes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ptychopinn.training import (
    MicroBatches,
    RunLogger,
    ScanBatches,
    TrainingPlan,
    TrainingState,
    patterns_in,
    prefetch,
    read_step,
)
from ptychopinn.training.objective import LossTerms, Objective, offset_step
from ptychopinn.training.optimizer import ema_decay
from ptychopinn.typing import AnyArray
from ptychopinn_tf import operations
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.batches import TensorBatch, tensor_batches
from ptychopinn_tf.checkpoint import load_variables, variable_arrays
from ptychopinn_tf.devices import Devices, exact_float32
from ptychopinn_tf.forward import GroupForward
from ptychopinn_tf.model import Model
from ptychopinn_tf.optimizer import AdamW, clipped, move_average
from ptychopinn_tf.options import TfOptions


def make_objective(plan: TrainingPlan, scan: ScanBatches) -> Objective:
    """The loss of a plan's training or validation scan."""
    group = GroupForward(plan.model.N, plan.model.patch_size, scan.groups.reach)
    return Objective(plan, scan, operations, group, tf.constant(scan.good))


class Slope(NamedTuple):
    """Terms of a batch and the gradient of their sum."""

    terms: LossTerms
    gradients: dict[str, tf.Tensor]


class TrainingLoop:
    """A training under way (`ptychopinn.training.Fit`): a model, its running average, the optimizer.

    Parameters
    ----------
    model:
        Trained in place.
    plan:
        The training.
    options:
        How to compute.
    devices:
        Where; the model's variables are theirs.
    parts:
        Into how many parts batches are cut.
    """

    def __init__(
        self, model: Model, plan: TrainingPlan, options: TfOptions, devices: Devices, parts: MicroBatches
    ) -> None:
        self._model, self._plan, self._options, self._devices, self._parts = model, plan, options, devices, parts
        light = model.illumination
        free = {f"network/{name}": variable for name, variable in model.network.variables().items()}
        if plan.config.probe_trainable:
            free["illumination/values"] = light.values
        if plan.config.intensity_scale_trainable:
            free["illumination/log_intensity"] = light.log_intensity
        self._free = free
        with devices.first():
            self._average = model.copy()
            self._optimizer = AdamW(free)
            self._averaged_steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._gradient = devices.summed(self._gradient_of(make_objective(plan, plan.training)))
        self._validate = None
        if plan.validation is not None:
            objective = make_objective(plan, plan.validation)
            self._validate = devices.summed(lambda batch: objective(self._average, batch).total)
        self._step, self._follow = devices.function(self._take_step), devices.function(self._follow_offset)

    def averaged(self) -> dict[str, AnyArray]:
        """Copies of the averaged weights."""
        return variable_arrays(self._average.variables())

    def _state(self) -> dict[str, Mapping[str, tf.Variable]]:
        return {
            "model": self._model.variables(),
            "averaged": self._average.variables() | {"steps": self._averaged_steps},
            "optimizer": self._optimizer.variables(),
        }

    def state(self) -> dict[str, AnyArray]:
        """Everything that a resumed training needs."""
        groups = self._state().items()
        return {f"{group}/{name}": array for group, held in groups for name, array in variable_arrays(held).items()}

    def restore(self, arrays: Mapping[str, AnyArray]) -> None:
        """Put `state` back."""
        for group, variables in self._state().items():
            load_variables(variables, arrays, group)

    def model(self, averaged: Mapping[str, AnyArray]) -> Model:
        """A model of its own with these weights."""
        with self._devices.scope():
            model = self._model.copy()
        load_variables(model.variables(), averaged)
        return model

    def run(self, state: TrainingState, logger: RunLogger) -> None:
        """Train until `state` says stop or the epochs are done."""
        clock = self._plan.clock
        with exact_float32(deterministic=self._options.deterministic), self._devices.scope():
            while not (state.stop or clock.out_of_epochs):
                self._run_epoch(state)
                if row := state.close_epoch(self._validation_losses()):
                    logger.log(row, clock.step)

    def _run_epoch(self, state: TrainingState) -> None:
        plan, clock, source = self._plan, self._plan.clock, self._plan.training.batches
        accumulate, epoch = plan.config.accumulate_grad_batches, clock.epoch
        collected: dict[str, tf.Tensor] = {}
        with contextlib.closing(
            prefetch(lambda k: source.batch(epoch, k), len(source), self._options.num_workers)
        ) as batches:
            for number, arrays in enumerate(batches):
                rate = clock.learning_rate()
                slope: Slope = self._summed(self._gradient, arrays, plan.training)
                terms = {name: float(value) for name, value in slope.terms.parts.items()}
                state.record(read_step(float(slope.terms.total), terms, clock.step))
                if slope.terms.products:
                    self._follow(slope.terms.products)
                for name, gradient in slope.gradients.items() if accumulate > 1 else ():
                    share = gradient / accumulate
                    collected[name] = collected[name] + share if name in collected else share
                if plan.makes_step(number):
                    steps = int(self._averaged_steps.numpy())
                    kept = ema_decay(plan.config.weight_averaging, steps)
                    gradients = collected or slope.gradients
                    self._step(gradients, tf.constant(rate, tf.float32), tf.constant(kept, tf.float32))
                    collected = {}
                state.after_batch(number, patterns_in(arrays))
                if state.stop:
                    return

    def _validation_losses(self) -> list[float]:
        """Loss of each validation batch under the averaged weights."""
        validation, validate = self._plan.validation, self._validate
        if validation is None or validate is None:
            return []
        return [float(self._summed(validate, arrays, validation)) for arrays in validation.batches(0)]

    def _summed(
        self, compute: Callable[[list[TensorBatch]], Any], arrays: dict[str, AnyArray], scan: ScanBatches
    ) -> Any:
        """What a function of batches makes of one, added up over as many parts as fit into memory one by one."""
        full, devices = scan.groups.largest_batch, len(self._devices)

        def summed(parts: int) -> Any:
            shards = tensor_batches(arrays, full, devices * parts)
            found = [compute(shards[k : k + devices]) for k in range(0, len(shards), devices)]
            return tf.nest.map_structure(lambda *values: sum(values), *found)

        size = full if "counts" in arrays else len(arrays["simulated_counts"])
        return self._parts.compute(summed, -(-size // devices))

    def _gradient_of(self, objective: Objective) -> Callable[[TensorBatch], Slope]:
        def gradient(batch: TensorBatch) -> Slope:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(list(self._free.values()))
                terms = objective(self._model, batch)
            zero = tf.UnconnectedGradients.ZERO
            return Slope(terms, tape.gradient(terms.total, self._free, unconnected_gradients=zero))

        return gradient

    def _take_step(self, gradients: dict[str, tf.Tensor], rate: tf.Tensor, kept: tf.Tensor) -> None:
        self._optimizer.apply(clipped(gradients, self._plan.config), rate)
        weights = self._model.variables()
        move_average(self._average.variables(), weights, kept)
        self._averaged_steps.assign_add(1)

    def _follow_offset(self, products: tuple[tf.Tensor, ...]) -> None:
        """Move the detector's offset towards the one that the mean phase gradient of a batch shows."""
        self._model.illumination.offset_px.assign_add(offset_step(operations, products, self._plan.model.N))
