"""The training loop: one function for a step on one batch, and its pieces for micro-batches and accumulated gradients.

Nothing in a step waits for the device. Losses are summed there, and read a few times a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ptychopinn.training import (
    LossReading,
    MicroBatches,
    RunLogger,
    ScanBatches,
    TrainingPlan,
    TrainingState,
    checkpoint_tensors,
)
from ptychopinn.training.loop import EpochLoop
from ptychopinn.training.objective import LossTerms, Objective, offset_step
from ptychopinn.training.optimizer import ema_decay
from ptychopinn.training.sources import Batch, MemoryBudget
from ptychopinn.typing import AnyArray
from ptychopinn_tf import operations
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.batches import Tensors, cut, share_of
from ptychopinn_tf.checkpoint import load_variables, variable_arrays
from ptychopinn_tf.devices import Device, exact_float32
from ptychopinn_tf.forward import GroupForward
from ptychopinn_tf.model import Model
from ptychopinn_tf.optimizer import AdamW, clipped, move_average
from ptychopinn_tf.options import TfOptions
from ptychopinn_tf.sources import choose_source

_AVERAGED_STEPS = "averaged/steps"  # name in checkpoints


def make_objective(plan: TrainingPlan, scan: ScanBatches) -> Objective:
    """The loss on a plan's training or validation scan."""
    group = GroupForward(plan.model.N, plan.model.patch_size, scan.groups.reach)
    return Objective(plan, scan, operations, group, tf.constant(scan.good))


class LossAndGradients(NamedTuple):
    """Terms of the newest batch, gradients for the next step, and the sum of their losses."""

    terms: LossTerms
    gradients: dict[str, tf.Tensor]
    losses: tf.Tensor


class LossMeter:
    """Sums losses of batches on the device, in a tensor that each step replaces.

    ``names`` are those of the figures: ``loss``, then the terms.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._nothing = tf.constant([0.0] * (len(names) + 1) + [math.inf], tf.float64)
        self.sums = self._nothing  # sum of each figure, newest loss, first step with an unusable gradient
        self.batches = 0

    def with_batch(self, sums: tf.Tensor, terms: LossTerms, usable: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """The sums plus the losses of a batch of step ``step``; ``usable``: whether its gradient was used."""
        values = tf.stack([terms.total, *(terms.parts[name] for name in self._names[1:])])
        bad = tf.where(usable, tf.constant(math.inf, tf.float64), step)
        last = tf.stack([tf.cast(terms.total, tf.float64), tf.minimum(sums[-1], bad)])
        return tf.concat([sums[:-2] + tf.cast(values, tf.float64), last], axis=0)

    def count(self, sums: tf.Tensor) -> None:
        """Store the sums, which have one more batch."""
        self.sums = sums
        self.batches += 1

    def read(self) -> LossReading:
        """The losses since the last reading, in one transfer; resets the sums."""
        reading = LossReading.of(self._names, self.sums.numpy().tolist(), self.batches)
        self.sums, self.batches = self._nothing, 0
        return reading


class TrainingLoop(EpochLoop):
    """The training loop: a model, trained in place, its running average, and the optimizer.

    It is a `ptychopinn.training.Fit`.
    """

    _meter: LossMeter

    def __init__(
        self,
        model: Model,
        plan: TrainingPlan,
        options: TfOptions,
        device: Device,
        parts: MicroBatches,
        budget: MemoryBudget,
    ) -> None:
        workers, held = options.num_workers, plan.validation
        source = choose_source(plan.training, device, budget, workers)
        held_source = None if held is None else choose_source(held, device, budget, workers)
        super().__init__(plan, source, held_source, on_gpu=device.on_gpu)
        self._model, self._options, self._device, self._parts = model, options, device, parts
        light = model.illumination
        free = {f"network/{name}": variable for name, variable in model.network.variables().items()}
        if plan.config.probe_trainable:
            free["illumination/values"] = light.values
        if plan.config.intensity_scale_trainable:
            free["illumination/log_intensity"] = light.log_intensity
        self._free = free
        with device.scope():
            self._average = model.copy()
            self._optimizer = AdamW(free)
            self._meter = LossMeter(tuple(name for name in plan.figures if name != "validation_loss"))
        self._averaged_steps = 0
        gradient = self._gradient_of(make_objective(plan, plan.training))
        self._gradient = device.function(gradient)
        self._whole_step = device.function(lambda batch, numbers, sums: self._make_step(gradient(batch), numbers, sums))
        self._step, self._record = device.function(self._make_step), device.function(self._record_batch)
        if held is not None:
            objective = make_objective(plan, held)
            self._validation_loss = device.function(lambda batch: objective(self._average, batch).total)
        self._accumulated: LossAndGradients | None = None  # accumulated from earlier batches for the next step

    def averaged(self) -> dict[str, AnyArray]:
        """Copies of the averaged weights."""
        return variable_arrays(self._average.variables())

    def _state(self) -> dict[str, Mapping[str, tf.Variable]]:
        return {
            "model": self._model.variables(),
            "averaged": self._average.variables(),
            "optimizer": self._optimizer.variables(),
        }

    def state(self) -> dict[str, AnyArray]:
        """Everything that a resumed training needs."""
        groups = self._state().items()
        arrays = {f"{group}/{name}": array for group, held in groups for name, array in variable_arrays(held).items()}
        return arrays | {_AVERAGED_STEPS: np.array([self._averaged_steps])}

    def restore(self, arrays: Mapping[str, AnyArray]) -> None:
        """Put `state` back."""
        for group, variables in self._state().items():
            load_variables(variables, arrays, group)
        self._averaged_steps = int(checkpoint_tensors(arrays, {_AVERAGED_STEPS: ()})[_AVERAGED_STEPS])

    def model(self, averaged: Mapping[str, AnyArray]) -> Model:
        """A separate model with these weights."""
        with self._device.scope():
            model = self._model.copy()
        load_variables(model.variables(), averaged)
        return model

    def run(self, state: TrainingState, logger: RunLogger) -> None:
        """As `EpochLoop.run`, in true float32."""
        with exact_float32(deterministic=self._options.deterministic), self._device.scope():
            super().run(state, logger)

    def follow(self) -> None:
        """As `EpochLoop.follow`, in true float32."""
        with exact_float32(deterministic=self._options.deterministic), self._device.scope():
            super().follow()

    def train_on(self, batch: Batch, *, rate: float, makes_step: bool) -> None:
        """Accumulate the gradient of a batch, and make a step with the accumulated gradients."""
        clock, config = self._plan.clock, self._plan.config
        decay = ema_decay(config.weight_averaging, self._averaged_steps)
        numbers = self._device.numbers([rate, decay, clock.step], tf.float64)
        at_once = makes_step and self._accumulated is None and config.accumulate_grad_batches == 1

        def compute(parts: int) -> Any:
            if at_once and parts == 1:
                return self._whole_step(batch.tensors, numbers, self._meter.sums)
            return self._sum_parts(self._gradient, batch, parts)

        outcome = self._parts.compute(compute, batch.size) if self._ranks.count == 1 else self._share_added_up(batch)
        if isinstance(outcome, LossAndGradients):
            computed = self._accumulate(outcome)
            function = self._step if makes_step else self._record
            outcome = function(computed, numbers, self._meter.sums)
            self._accumulated = None if makes_step else computed
        self._averaged_steps += makes_step
        self._meter.count(outcome)

    def _share_added_up(self, batch: Batch) -> LossAndGradients:
        """Compute this process's share of a batch, and add up those of all."""
        own = share_of(batch, self._ranks.rank, self._ranks.count)

        def compute() -> tuple[LossAndGradients, AnyArray]:
            found = self._parts.compute(lambda parts: self._sum_parts(self._gradient, own, parts), own.size)
            flat = tf.concat([tf.reshape(value, [-1]) for value in tf.nest.flatten(found)], axis=0)
            return found, np.array(flat)  # in one transfer

        computed, values = self._ranks.together(compute)
        self._ranks.add(values)
        shapes = [value.shape for value in tf.nest.flatten(computed)]
        summed = tf.split(tf.constant(values), [shape.num_elements() for shape in shapes])
        tensors = [tf.reshape(value, shape) for value, shape in zip(summed, shapes, strict=True)]
        added: LossAndGradients = tf.nest.pack_sequence_as(computed, tensors)
        return added

    def _accumulate(self, computed: LossAndGradients) -> LossAndGradients:
        """Add the gradient of a batch to those accumulated for the next step."""
        accumulate, before = self._plan.config.accumulate_grad_batches, self._accumulated
        if accumulate == 1:
            return computed
        gradients = {name: gradient / accumulate for name, gradient in computed.gradients.items()}
        if before is None:
            return computed._replace(gradients=gradients)
        summed = {name: before.gradients[name] + gradient for name, gradient in gradients.items()}
        return LossAndGradients(computed.terms, summed, before.losses + computed.losses)

    def validation_losses(self, batches: Iterable[Batch]) -> list[float]:
        """Loss of each validation batch under the averaged weights."""

        def loss(batch: Batch) -> tf.Tensor:
            own = share_of(batch, self._ranks.rank, self._ranks.count)
            return self._parts.compute(lambda parts: self._sum_parts(self._validation_loss, own, parts), own.size)

        losses: AnyArray = self._ranks.together(lambda: np.array(tf.stack([loss(batch) for batch in batches])))
        self._ranks.add(losses)
        values: list[float] = losses.tolist()
        return values

    @staticmethod
    def _sum_parts(compute: Callable[[Tensors], Any], batch: Batch, parts: int) -> Any:
        """Apply a function to a batch in micro-batches, and sum the results."""
        results = [compute(part) for part in cut(batch.tensors, parts)]
        return results[0] if parts == 1 else tf.nest.map_structure(lambda *values: tf.add_n(values), *results)

    def _gradient_of(self, objective: Objective) -> Callable[[Tensors], LossAndGradients]:
        def gradient(batch: Tensors) -> LossAndGradients:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(list(self._free.values()))
                terms = objective(self._model, batch)
            zero = tf.UnconnectedGradients.ZERO
            gradients = tape.gradient(terms.total, self._free, unconnected_gradients=zero)
            return LossAndGradients(terms, gradients, terms.total)

        return gradient

    # Compiled functions

    def _make_step(self, computed: LossAndGradients, numbers: tf.Tensor, sums: tf.Tensor) -> tf.Tensor:
        """Make a step and return the sums of the losses. If a value is not finite, the weights do not change.

        ``numbers`` is (3,) float64: learning rate, decay of the running average, number of the step.
        """
        # All gradients are computed before the first change, so a step that does not fit into memory changes nothing.
        with tf.control_dependencies(list(computed.gradients.values())):
            self._follow_offset(computed.terms)
            gradients, usable = clipped(computed.gradients, self._plan.config)
            usable = tf.logical_and(usable, tf.math.is_finite(computed.losses))
            rate, decay = tf.cast(numbers[0], tf.float32), tf.cast(numbers[1], tf.float32)
            gradients = {name: tf.where(usable, value, tf.zeros_like(value)) for name, value in gradients.items()}
            self._optimizer.apply(gradients, tf.where(usable, rate, tf.zeros_like(rate)))
            move_average(self._average.variables(), self._model.variables(), decay)
            return self._meter.with_batch(sums, computed.terms, usable, numbers[2])

    def _record_batch(self, computed: LossAndGradients, numbers: tf.Tensor, sums: tf.Tensor) -> tf.Tensor:
        """As `_make_step`, without a step."""
        self._follow_offset(computed.terms)
        return self._meter.with_batch(sums, computed.terms, tf.math.is_finite(computed.losses), numbers[2])

    def _follow_offset(self, terms: LossTerms) -> None:
        """Move the detector's offset towards the one given by the mean phase gradient of a batch."""
        if terms.products:
            move = offset_step(operations, terms.products, self._plan.model.N)
            move = tf.where(tf.math.is_finite(terms.total), move, tf.zeros_like(move))
            self._model.illumination.offset_px.assign_add(move)
