"""The training loop: one function for the gradient of a batch, one for the step that it makes.

Nothing in a step waits for the device: losses are summed there, and read a few times a second.
"""

from __future__ import annotations

import copy
import logging
import math
import operator
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import reduce
from typing import Any, TypeAlias

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
from ptychopinn.training.objective import LossTerms, Objective, TrainedModel, offset_step
from ptychopinn.training.optimizer import BETAS, EPSILON, PROBE_RATE, WEIGHT_DECAY, ema_decay
from ptychopinn.typing import AnyArray
from ptychopinn_torch import operations
from ptychopinn_torch.batches import TensorBatch, to_tensor
from ptychopinn_torch.checkpoint import load_module, load_optimizer, module_arrays, optimizer_arrays
from ptychopinn_torch.forward import GroupForward
from ptychopinn_torch.model import FixedIllumination, Model
from ptychopinn_torch.numerics import exact_float32
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.sources import DeviceBudget, choose_source

_READING_INTERVAL_S = 0.25  # between two readings of the losses on a GPU; on the CPU they are read at every step
_AVERAGED, _AVERAGED_STEPS = "averaged/module", "averaged/n_averaged"  # names in checkpoints

# Terms of a batch and the gradient of their sum, None for weights that it does not depend on.
_LossAndGradients: TypeAlias = tuple[LossTerms, list[Tensor | None]]


def make_objective(plan: TrainingPlan, scan: ScanBatches, device: torch.device) -> Objective:
    """The loss of a plan's training or validation scan, on a device."""
    group = GroupForward(plan.model.N, plan.model.patch_size, scan.groups.reach).to(device)
    return Objective(plan, scan, operations, group, to_tensor(scan.good, device))


def make_fabric(device: torch.device) -> Fabric:
    """Lightning Fabric on a device: one process, whatever job it is a part of.

    Its precision is full: `Model` lowers that of the network alone, the physics stays in float32.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its notes about devices are not for our users
    on_gpu = device.type == "cuda"
    return Fabric(
        accelerator="cuda" if on_gpu else "cpu",
        devices=[device.index or 0] if on_gpu else 1,
        plugins=[LightningEnvironment()],
    )


def make_optimizer(model: Model, plan: TrainingPlan) -> torch.optim.AdamW:
    """AdamW over the network and whatever physics is free; each group has its share ``rate`` of the learning rate."""
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
    """The objective and the model that it is of, as the one module that Fabric sets up.

    Parameters
    ----------
    model, objective:
        These.
    fixed_light:
        Whether the model's light stays as it is.
    """

    def __init__(self, model: Model, objective: Objective, *, fixed_light: bool) -> None:
        super().__init__()
        self.model, self._objective = model, objective
        self._trained: TrainedModel = FixedIllumination(model) if fixed_light else model

    def forward(self, batch: Mapping[str, Tensor]) -> LossTerms:
        """Terms of a batch or of a part of one."""
        return self._objective(self._trained, batch)


class LossMeter:
    """Losses of batches, summed where they are computed.

    Parameters
    ----------
    device:
        That computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._names: tuple[str, ...] = ()
        self._sums = torch.zeros(0, device=device)
        self._newest = torch.zeros(1, device=device)
        self._first_bad = torch.full((1,), math.inf, device=device, dtype=torch.float64)
        self.batches = 0

    def add(self, terms: LossTerms, usable: Tensor, step: int) -> None:
        """Add a batch, which was to make step ``step``; ``usable`` is a bool: whether its gradient could be used."""
        values = torch.stack([terms.total, *terms.parts.values()])
        if not self._names:
            self._names = ("loss", *terms.parts)
            self._sums = torch.zeros_like(values, dtype=torch.float64)
        self._sums += values
        self._newest = values[:1]
        self._first_bad = torch.minimum(self._first_bad, torch.where(usable, math.inf, float(step)))
        self.batches += 1

    def read(self) -> LossReading:
        """The losses since the last reading, in one transfer; begins anew."""
        *sums, newest, step = torch.cat([self._sums, self._newest, self._first_bad]).tolist()
        reading = LossReading(
            sums=dict(zip(self._names, sums, strict=True)),
            batches=self.batches,
            newest=newest,
            not_finite=(int(step), sums[0]) if math.isfinite(step) else None,
        )
        self._sums.zero_()
        self.batches = 0
        return reading


class TrainingLoop:
    """A training under way (`ptychopinn.training.Fit`): a model, its running average, the optimizer.

    Parameters
    ----------
    model:
        Trained in place, on its device.
    plan:
        The training.
    options, device:
        How to compute, and where.
    parts:
        Into how many parts batches are cut.
    """

    def __init__(
        self, model: Model, plan: TrainingPlan, options: TorchOptions, device: torch.device, parts: MicroBatches
    ) -> None:
        self._model, self._plan, self._options, self._device, self._parts = model, plan, options, device, parts
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
        budget = DeviceBudget(options, device)
        workers = options.num_workers
        self._source = choose_source(plan.training.batches, device, budget, workers)
        self._validation = plan.validation
        if plan.validation is not None:
            objective = make_objective(plan, plan.validation, device)
            self._validation_loss = BatchLoss(self._average, objective, fixed_light=False)
            self._validation_source = choose_source(plan.validation.batches, device, budget, workers)
        self._meter = LossMeter(device)
        self._read_at = -math.inf
        self._collected: list[Tensor | None] = []  # gradients for the coming step
        self._usable = torch.ones((), dtype=torch.bool, device=device)  # whether they are

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

    def model(self, averaged: Mapping[str, AnyArray]) -> Model:
        """A model of its own with these weights, ready to predict."""
        model = copy.deepcopy(self._average)
        load_module(model, averaged)
        return model.eval()

    # The loop

    def run(self, state: TrainingState, logger: RunLogger) -> None:
        """Train until `state` says stop or the epochs are done."""
        clock = self._plan.clock
        with exact_float32(deterministic=self._options.deterministic):
            while not (state.stop or clock.out_of_epochs):
                self._run_epoch(state)
                if row := state.close_epoch(self._validation_losses()):
                    logger.log(row, clock.step)

    def _run_epoch(self, state: TrainingState) -> None:
        plan = self._plan
        with closing(self._source.batches(plan.clock.epoch)) as batches:
            for number, batch in enumerate(batches):
                self.train_on(batch, makes_step=plan.makes_step(number))
                if self._reading_is_due():
                    state.record(self._meter.read())
                state.after_batch(number, batch.patterns)
                if state.stop:
                    break
        if self._meter.batches:
            state.record(self._meter.read())

    def _reading_is_due(self) -> bool:
        now = time.monotonic()
        if self._device.type == "cuda" and now - self._read_at < _READING_INTERVAL_S:
            return False
        self._read_at = now
        return True

    def train_on(self, batch: TensorBatch, *, makes_step: bool) -> None:
        """Collect the gradient of a batch, and take a step with those that are collected."""
        clock = self._plan.clock
        rate = clock.learning_rate()
        terms, gradients = self._parts.compute(lambda parts: self._gradients(batch, parts), batch.size)
        finite = torch.isfinite(terms.total)
        if terms.products:
            move = offset_step(operations, terms.products, self._plan.model.N)
            self._model.illumination.offset_px += torch.where(finite, move, 0.0)
        self._collect(gradients)
        self._usable = self._usable & finite
        if makes_step:
            self._step(rate)
        self._meter.add(terms, self._usable, clock.step)
        if makes_step:
            self._usable = torch.ones_like(self._usable)

    def _gradients(self, batch: TensorBatch, parts: int) -> _LossAndGradients:
        """Terms of a batch and the gradient of its loss; a part of it is done with before the next one begins."""
        self._set_gradients([None] * len(self._free))  # of a batch that did not fit, too
        terms = reduce(lambda one, other: one.map(operator.add, other), map(self._backward, batch.cut(parts)))
        gradients = [weight.grad for weight in self._free]
        self._set_gradients([None] * len(self._free))
        return terms, gradients

    def _backward(self, part: Mapping[str, Tensor]) -> LossTerms:
        """Terms of a part of a batch; adds its gradient to what the weights have."""
        terms: LossTerms = self._loss(part)
        self._fabric.backward(terms.total)
        return terms.map(Tensor.detach)

    def _collect(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the gradient of a batch to those collected for the coming step."""
        accumulate = self._plan.config.accumulate_grad_batches
        if accumulate > 1:
            before = self._collected or [None] * len(gradients)
            gradients = [
                _sum(old, None if g is None else g / accumulate) for old, g in zip(before, gradients, strict=True)
            ]
        self._collected = list(gradients)

    def _set_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        for weight, gradient in zip(self._free, gradients, strict=True):
            weight.grad = gradient

    def _step(self, rate: float) -> None:
        """Step with the collected gradients, and move the running average; nothing moves where they are not finite."""
        config = self._plan.config
        self._set_gradients(self._collected)
        self._collected = []
        if config.gradient_clip is not None and config.gradient_clip_algorithm is ClipAlgorithm.NORM:
            norm = self._fabric.clip_gradients(
                self._loss, self._optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False
            )
            assert norm is not None  # only clipping by value gives none
            self._usable = self._usable & torch.isfinite(norm)
        elif config.gradient_clip is not None:
            self._fabric.clip_gradients(self._loss, self._optimizer, clip_val=config.gradient_clip)
        for group in self._adamw.param_groups:
            group["lr"] = rate * group["rate"]
        self._adamw.found_inf = (~self._usable).float()  # type: ignore[attr-defined]  # where it is 1, no step is made
        self._optimizer.step()
        self._set_gradients([None] * len(self._free))
        kept = ema_decay(config.weight_averaging, self._averaged_steps)
        torch._foreach_lerp_(_tensors(self._average), _tensors(self._model), 1 - kept)
        self._averaged_steps += 1

    def _validation_losses(self) -> list[float]:
        """Loss of each validation batch under the averaged weights."""
        if self._validation is None:
            return []

        def loss(batch: TensorBatch) -> Tensor:
            return self._parts.compute(lambda parts: reduce(operator.add, map(total, batch.cut(parts))), batch.size)

        def total(part: Mapping[str, Tensor]) -> Tensor:
            terms: LossTerms = self._validation_loss(part)
            value: Tensor = terms.total
            return value

        with torch.no_grad(), closing(self._validation_source.batches(0)) as batches:
            found: list[float] = torch.stack([loss(batch) for batch in batches]).tolist()
        return found


def _tensors(model: Model) -> list[Tensor]:
    """Weights and buffers, without gradient; the detector's offset is one of them."""
    return list(model.state_dict().values())


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
