"""The training loop: one function for the gradient of a batch, one for the step.

Nothing in a step waits for the device. Losses are summed there, and read a few times a second.
"""

from __future__ import annotations

import copy
import logging
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn

from ptychopinn.config.train import ClipAlgorithm
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
from ptychopinn.training.objective import LossTerms, Objective, TrainedModel, offset_step
from ptychopinn.training.optimizer import BETAS, EPSILON, PROBE_RATE, WEIGHT_DECAY, ema_decay
from ptychopinn.training.sources import Batch
from ptychopinn.typing import AnyArray
from ptychopinn_torch import operations
from ptychopinn_torch.batches import cut, share_of, to_tensor
from ptychopinn_torch.captured import CapturedStep, make_recorder
from ptychopinn_torch.checkpoint import load_module, load_optimizer, module_arrays, optimizer_arrays
from ptychopinn_torch.forward import GroupForward
from ptychopinn_torch.model import FixedIllumination, Model
from ptychopinn_torch.numerics import exact_float32
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.sources import choose_source, device_budget

_AVERAGED, _AVERAGED_STEPS = "averaged/module", "averaged/n_averaged"  # names in checkpoints

# Terms of a batch and the gradient of their sum; None for weights that it does not depend on.
_TermsAndGradients: TypeAlias = tuple[LossTerms, list[Tensor | None]]


class _Accumulated(NamedTuple):
    """Gradients accumulated for the next step, and a bool tensor: whether they can be used."""

    gradients: list[Tensor | None]
    usable: Tensor


def make_objective(plan: TrainingPlan, scan: ScanBatches, device: torch.device) -> Objective:
    """The loss on a plan's training or validation scan, on a device."""
    group = GroupForward(plan.model.N, plan.model.patch_size, scan.groups.reach).to(device)
    return Objective(plan, scan, operations, group, to_tensor(scan.good, device))


def make_fabric(device: torch.device) -> Fabric:
    """Lightning Fabric on the device of this process. Several processes add up gradients in `TrainingLoop`.

    Its precision is full. `Model` lowers the precision of the network only; the physics stays in float32.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # hide its notes about devices
    on_gpu = device.type == "cuda"
    return Fabric(
        accelerator="cuda" if on_gpu else "cpu",
        devices=[device.index or 0] if on_gpu else 1,
        plugins=[LightningEnvironment()],
    )


def make_optimizer(model: Model, plan: TrainingPlan) -> torch.optim.AdamW:
    """AdamW over the network and the free physics. ``rate`` of a group multiplies the learning rate."""
    config, light = plan.config, model.illumination
    groups: list[dict[str, Any]] = [{"params": list(model.network.parameters()), "rate": 1.0}]
    if config.probe_trainable:
        groups.append({"params": [light.values], "rate": PROBE_RATE, "weight_decay": 0.0})
    if config.intensity_scale_trainable:
        groups.append({"params": [light.log_intensity], "rate": PROBE_RATE, "weight_decay": 0.0})
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, weight_decay=WEIGHT_DECAY, betas=BETAS, eps=EPSILON, fused=True
    )


class BatchLoss(nn.Module):
    """The model and its objective, as one module for Fabric. ``fixed_light``: the illumination does not change."""

    def __init__(self, model: Model, objective: Objective, *, fixed_light: bool) -> None:
        super().__init__()
        self.model, self._objective = model, objective
        self._trained: TrainedModel = FixedIllumination(model) if fixed_light else model

    def forward(self, batch: Mapping[str, Tensor]) -> LossTerms:
        """Terms of a batch or micro-batch."""
        return self._objective(self._trained, batch)


class LossMeter:
    """Sums losses of batches on the device."""

    def __init__(self, device: torch.device) -> None:
        self._names: tuple[str, ...] = ()
        self._sums = torch.zeros(0, device=device)
        self._newest = torch.zeros(1, device=device)
        self._first_bad = torch.full((1,), math.inf, device=device, dtype=torch.float64)
        self.batches = 0

    def add(self, terms: LossTerms, usable: Tensor, step: int) -> None:
        """Add a batch of step ``step``. ``usable`` is a bool tensor: whether its gradient was used."""
        values = torch.stack([terms.total, *terms.parts.values()])
        if not self._names:
            self._names = ("loss", *terms.parts)
            self._sums = torch.zeros_like(values, dtype=torch.float64)
        self._sums += values
        self._newest = values[:1]
        self._first_bad = torch.minimum(self._first_bad, torch.where(usable, math.inf, float(step)))
        self.batches += 1

    def read(self) -> LossReading:
        """The losses since the last reading, in one transfer; resets the sums."""
        values = torch.cat([self._sums, self._newest, self._first_bad]).tolist()
        reading = LossReading.of(self._names, values, self.batches)
        self._sums.zero_()
        self.batches = 0
        return reading


class TrainingLoop(EpochLoop):
    """The training loop: a model, trained in place, its running average, and the optimizer.

    It is a `ptychopinn.training.Fit`.
    """

    _meter: LossMeter

    def __init__(
        self, model: Model, plan: TrainingPlan, options: TorchOptions, device: torch.device, parts: MicroBatches
    ) -> None:
        budget, workers = device_budget(options, device), options.num_workers
        source = choose_source(plan.training.batches, device, budget, workers)
        held = None if plan.validation is None else choose_source(plan.validation.batches, device, budget, workers)
        super().__init__(plan, source, held, on_gpu=device.type == "cuda")
        self._model, self._options, self._device, self._parts = model, options, device, parts
        light = model.illumination
        model.network.requires_grad_(True)
        light.values.requires_grad_(plan.config.probe_trainable)
        light.log_intensity.requires_grad_(plan.config.intensity_scale_trainable)
        self._average, self._averaged_steps = copy.deepcopy(model).requires_grad_(False), 0
        self._adamw = make_optimizer(model, plan)
        self._free: list[Tensor] = [weight for group in self._adamw.param_groups for weight in group["params"]]
        free = {id(weight) for weight in self._free}
        self._names = [name.replace(".", "/") for name, p in model.named_parameters() if id(p) in free]
        self._fabric = make_fabric(device)
        moves = plan.follow_offset or plan.config.probe_trainable or plan.config.intensity_scale_trainable
        loss = BatchLoss(model, make_objective(plan, plan.training, device), fixed_light=not moves)
        self._loss, self._optimizer = self._fabric.setup(loss, self._adamw)
        if plan.validation is not None:
            objective = make_objective(plan, plan.validation, device)
            self._validation_loss = BatchLoss(self._average, objective, fixed_light=False)
        self._meter = LossMeter(device)
        self._accumulated: _Accumulated | None = None
        # Numbers that change from step to step; a recorded step reads them from these tensors.
        self._rate, self._decay = torch.zeros((), device=device), torch.zeros((), device=device)
        self._captured = self._new_captured()

    # The state

    def averaged(self) -> dict[str, AnyArray]:
        """Copies of the averaged weights."""
        return module_arrays(self._average)

    def state(self) -> dict[str, AnyArray]:
        """Everything that a resumed training needs."""
        return {
            **module_arrays(self._model, "model"),
            **module_arrays(self._average, _AVERAGED),
            _AVERAGED_STEPS: np.array([self._averaged_steps]),
            **optimizer_arrays(self._adamw, self._names),
        }

    def restore(self, arrays: Mapping[str, AnyArray]) -> None:
        """Put `state` back."""
        load_module(self._model, arrays, "model")
        load_module(self._average, arrays, _AVERAGED)
        self._averaged_steps = int(checkpoint_tensors(arrays, {_AVERAGED_STEPS: ()})[_AVERAGED_STEPS])
        load_optimizer(self._adamw, self._names, arrays)
        self._captured = self._new_captured()  # because the optimizer has new tensors

    def model(self, averaged: Mapping[str, AnyArray]) -> Model:
        """A separate model with these weights, ready to predict."""
        model = copy.deepcopy(self._average)
        load_module(model, averaged)
        return model.eval()

    def _new_captured(self) -> CapturedStep[tuple[LossTerms, Tensor]]:
        """Records steps, but not those of several processes, which wait for each other within a step."""
        return CapturedStep(make_recorder(self._device) if self._ranks.count == 1 else None)

    # The loop

    def run(self, state: TrainingState, logger: RunLogger) -> None:
        """As `EpochLoop.run`, in true float32."""
        with exact_float32(deterministic=self._options.deterministic):
            super().run(state, logger)

    def follow(self) -> None:
        """As `EpochLoop.follow`, in true float32."""
        with exact_float32(deterministic=self._options.deterministic):
            super().follow()

    def train_on(self, batch: Batch, *, rate: float, makes_step: bool) -> None:
        """Accumulate the gradient of a batch, and make a step with the accumulated gradients."""
        if makes_step:
            self._rate.fill_(rate)
            self._decay.fill_(ema_decay(self._plan.config.weight_averaging, self._averaged_steps))
            self._averaged_steps += 1
        if not makes_step or self._accumulated is not None:
            terms, accumulated = self._accumulate(self._computed(batch), self._accumulated)
            usable = self._step(accumulated) if makes_step else accumulated.usable
            self._accumulated = None if makes_step else accumulated
        elif self._parts.count > 1:
            self._captured = CapturedStep(None)  # memory is short: drop graphs, and record none
            terms, usable = self._whole_step(self._computed(batch))
        else:
            terms, usable = self._captured(
                batch.tensors, lambda: self._whole_step(self._computed(batch)), self._recorded_step
            )
        self._meter.add(terms, usable, self._plan.clock.step)

    def _computed(self, batch: Batch) -> _TermsAndGradients:
        """Terms and gradient of a batch, in as many micro-batches as the memory requires.

        Each of several processes computes its share; then all have the sum.
        """
        own = share_of(batch, self._ranks.rank, self._ranks.count)

        def compute() -> _TermsAndGradients:
            return self._parts.compute(lambda parts: self._gradients(cut(own.tensors, parts)), own.size)

        if self._ranks.count == 1:
            return compute()

        def flattened() -> tuple[LossTerms, list[Tensor | None], list[Tensor], Tensor]:
            terms, gradients = compute()
            values = [terms.total, *terms.parts.values(), *terms.products, *(g for g in gradients if g is not None)]
            return terms, gradients, values, torch.cat([value.reshape(-1) for value in values])

        terms, gradients, values, flat = self._ranks.together(flattened)
        self._ranks.add(flat)
        for value, summed in zip(values, torch.split(flat, [value.numel() for value in values]), strict=True):
            value.copy_(summed.view(value.shape))  # in place: fused optimizers need the memory layout of the weights
        return terms, gradients

    def _whole_step(self, computed: _TermsAndGradients) -> tuple[LossTerms, Tensor]:
        """Make a step with the gradient of one batch; return its terms, and whether the gradient was used."""
        terms, accumulated = self._accumulate(computed, None)
        return terms, self._step(accumulated)

    def _recorded_step(self, tensors: Mapping[str, Tensor]) -> tuple[LossTerms, Tensor]:
        with _capturable(self._adamw):
            return self._whole_step(self._gradients([tensors]))

    def _gradients(self, parts: Sequence[Mapping[str, Tensor]]) -> _TermsAndGradients:
        """Terms of a batch and the gradient of its loss, one micro-batch after the other."""
        self._set_gradients([None] * len(self._free))  # a batch that did not fit may have left some
        terms = reduce(lambda one, other: one.map(operator.add, other), map(self._backward, parts))
        gradients = [weight.grad for weight in self._free]
        self._set_gradients([None] * len(self._free))
        return terms, gradients

    def _backward(self, part: Mapping[str, Tensor]) -> LossTerms:
        """Terms of a micro-batch; adds its gradient to those of the weights."""
        terms: LossTerms = self._loss(part)
        self._fabric.backward(terms.total)
        return terms.map(Tensor.detach)

    def _accumulate(self, computed: _TermsAndGradients, before: _Accumulated | None) -> tuple[LossTerms, _Accumulated]:
        """Add the gradient of a batch to those accumulated for the next step; update the detector's offset."""
        terms, gradients = computed
        finite = torch.isfinite(terms.total)
        if terms.products:
            move = offset_step(operations, terms.products, self._plan.model.N)
            self._model.illumination.offset_px += torch.where(finite, move, 0.0)
        accumulate = self._plan.config.accumulate_grad_batches
        if accumulate > 1:
            gradients = [None if g is None else g / accumulate for g in gradients]
        if before is None:
            return terms, _Accumulated(gradients, finite)
        summed = [_sum(old, new) for old, new in zip(before.gradients, gradients, strict=True)]
        return terms, _Accumulated(summed, before.usable & finite)

    def _set_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        for weight, gradient in zip(self._free, gradients, strict=True):
            weight.grad = gradient

    def _step(self, accumulated: _Accumulated) -> Tensor:
        """Make a step, and update the running average; return whether the gradients were used.

        If they are not finite, the weights do not change.
        """
        config, usable = self._plan.config, accumulated.usable
        self._set_gradients(accumulated.gradients)
        if config.gradient_clip is not None and config.gradient_clip_algorithm is ClipAlgorithm.NORM:
            norm = self._fabric.clip_gradients(
                self._loss, self._optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False
            )
            assert norm is not None  # None only if clipping by value
            usable = usable & torch.isfinite(norm)
        elif config.gradient_clip is not None:
            self._fabric.clip_gradients(self._loss, self._optimizer, clip_val=config.gradient_clip)
        for group in self._adamw.param_groups:
            group["lr"] = self._rate * group["rate"]
        self._adamw.found_inf = (~usable).float()  # type: ignore[attr-defined]  # 1 skips the step
        self._optimizer.step()
        self._set_gradients([None] * len(self._free))
        average, weights = _tensors(self._average), _tensors(self._model)
        # weight + decay * (average - weight): values that are equal in both do not change, to the bit.
        torch._foreach_sub_(average, weights)
        torch._foreach_mul_(average, self._decay)
        torch._foreach_add_(average, weights)
        return usable

    def validation_losses(self, batches: Iterable[Batch]) -> list[float]:
        """Loss of each validation batch under the averaged weights."""

        def loss(batch: Batch) -> Tensor:
            own = share_of(batch, self._ranks.rank, self._ranks.count)
            return self._parts.compute(
                lambda parts: reduce(operator.add, map(total, cut(own.tensors, parts))), own.size
            )

        def total(part: Mapping[str, Tensor]) -> Tensor:
            terms: LossTerms = self._validation_loss(part)
            value: Tensor = terms.total
            return value

        with torch.no_grad():
            losses = self._ranks.together(lambda: torch.stack([loss(batch) for batch in batches]))
            self._ranks.add(losses)
        values: list[float] = losses.tolist()
        return values


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Allow the optimizer's step to be recorded; the step is the same."""
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in optimizer.param_groups:
            group["capturable"] = False


def _tensors(model: Model) -> list[Tensor]:
    """Weights and buffers, without gradient; the detector's offset is one of them."""
    return list(model.state_dict().values())


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
