"""The training loop: Lightning drives it, the core's book steers it."""

from __future__ import annotations

import copy
import logging
import operator
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any, TypeAlias, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ptychopinn.config.train import ClipAlgorithm
from ptychopinn.training import EpochBook, Parts, RunLogger, ScanBatches, TrainingPlan
from ptychopinn.training.objective import Objective, Terms, offset_step
from ptychopinn.training.optimizer import BETAS, EPSILON, PROBE_RATE, WEIGHT_DECAY, kept_share
from ptychopinn.typing import AnyArray
from ptychopinn_torch import operations
from ptychopinn_torch.arithmetic import arithmetic
from ptychopinn_torch.batches import EpochDataset, TensorBatch, loader, to_tensor
from ptychopinn_torch.checkpoint import load_module, load_optimizer, module_arrays, optimizer_arrays
from ptychopinn_torch.forward import GroupForward
from ptychopinn_torch.model import Model
from ptychopinn_torch.options import TorchOptions

# Terms of a batch and the gradient of their sum, None for weights that it does not depend on.
_Slope: TypeAlias = tuple[Terms, list[Tensor | None]]


class TrainingModule(pl.LightningModule):
    """A model, its running average, its optimizer, and the objectives of training and validation scans.

    Parameters
    ----------
    model:
        Trained in place.
    plan:
        The training.
    parts:
        Into how many parts batches are cut.
    device:
        Where it computes.
    """

    book: EpochBook  # of the run under way

    def __init__(self, model: Model, plan: TrainingPlan, parts: Parts, device: torch.device) -> None:
        super().__init__()
        self.model, self.plan, self.parts = model, plan, parts
        self.objective = make_objective(plan, plan.training, device)
        self.validation_objective = None
        if plan.validation is not None:
            self.validation_objective = make_objective(plan, plan.validation, device)
        average = _running_average(plan.config.weight_averaging)
        self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)  # the detector's offset is one
        light = model.illumination
        light.values.requires_grad_(plan.config.probe_trainable)
        light.log_intensity.requires_grad_(plan.config.intensity_scale_trainable)
        self.adamw = self._adamw()
        self.free: list[Tensor] = [weight for group in self.adamw.param_groups for weight in group["params"]]
        self.validation_losses: list[float] = []
        self.gradients: list[Tensor | None] = []  # of the batch under way

    def _adamw(self) -> torch.optim.Optimizer:
        """AdamW over network and whatever physics is free."""
        config, light = self.plan.config, self.model.illumination
        groups: list[dict[str, Any]] = [{"params": list(self.model.network.parameters()), "rate": 1.0}]
        if config.probe_trainable:
            groups.append({"params": [light.values], "rate": PROBE_RATE, "weight_decay": 0.0})
        if config.intensity_scale_trainable:
            groups.append({"params": [light.log_intensity], "rate": PROBE_RATE, "weight_decay": 0.0})
        return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=WEIGHT_DECAY, betas=BETAS, eps=EPSILON)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer, which may have resumed from a checkpoint."""
        return self.adamw

    def transfer_batch_to_device(self, batch: TensorBatch, device: torch.device, dataloader_idx: int) -> TensorBatch:
        """Move a batch, which is our own type."""
        return batch.to(device)

    def on_train_batch_start(self, batch: TensorBatch, batch_idx: int) -> None:
        """Set the learning rate of the coming step."""
        for group in self.adamw.param_groups:
            group["lr"] = self.plan.clock.learning_rate() * group["rate"]

    def training_step(self, batch: TensorBatch, batch_idx: int) -> Tensor:
        """Loss of one batch, whose gradient `backward` hands on: a part is done with before the next one begins."""
        self.gradients = []  # those of the last batch are not held beside this one's
        terms, self.gradients = self.parts.compute(lambda parts: self._slope(batch, parts), batch.size)
        self.book.count(float(terms.total), {name: float(v) for name, v in terms.parts.items()}, batch.patterns)
        if terms.products:
            self.model.illumination.offset_px += offset_step(operations, terms.products, self.plan.model.N)
        loss: Tensor = terms.total
        return loss

    def _slope(self, batch: TensorBatch, parts: int) -> _Slope:
        return reduce(_added, map(self._slope_of, batch.cut(parts)))

    def _slope_of(self, part: TensorBatch) -> _Slope:
        terms = self.objective(self.model, part.tensors())
        return terms.map(Tensor.detach), list(torch.autograd.grad(terms.total, self.free, allow_unused=True))

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Add the gradient of the batch, in place of that of its loss, to those collected for the coming step."""
        for weight, gradient in zip(self.free, self.gradients, strict=True):
            if gradient is not None:
                share = gradient / self.plan.config.accumulate_grad_batches
                weight.grad = share if weight.grad is None else weight.grad + share

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then move the running average."""
        super().optimizer_step(*args, **kwargs)
        self.averaged.update_parameters(self.model)
        self.plan.clock.step += 1

    def validation_step(self, batch: TensorBatch, batch_idx: int) -> None:
        """Loss of one validation batch under the averaged weights."""
        assert self.validation_objective is not None  # there is a loader only with it
        objective, averaged = self.validation_objective, cast(Model, self.averaged.module)

        def loss(parts: int) -> float:
            return sum(float(objective(averaged, part.tensors()).total) for part in batch.cut(parts))

        self.validation_losses.append(self.parts.compute(loss, batch.size))


def _added(one: _Slope, other: _Slope) -> _Slope:
    def total(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return a if b is None else b if a is None else a + b

    return one[0].map(operator.add, other[0]), list(map(total, one[1], other[1]))


def make_objective(plan: TrainingPlan, scan: ScanBatches, device: torch.device) -> Objective:
    """The loss of a plan's training or validation scan, on a device."""
    group = GroupForward(plan.model.N, plan.model.patch_size, scan.groups.reach)
    return Objective(plan, scan, operations, group, to_tensor(scan.good, device))


_Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]


def _running_average(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """The average of `ptychopinn.training.optimizer.kept_share`."""

    @torch.no_grad()
    def update(averaged: _Tensors, current: _Tensors, count: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, 1 - kept_share(decay, int(count)))

    return update


class TrainingLoop:
    """A training under way (`ptychopinn.training.Fit`).

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
        self, model: Model, plan: TrainingPlan, options: TorchOptions, device: torch.device, parts: Parts
    ) -> None:
        self._plan, self._options, self._device = plan, options, device
        self._module = TrainingModule(model, plan, parts, device).to(device)
        free = {id(weight) for weight in self._module.free}
        self._names = [name.replace(".", "/") for name, p in model.named_parameters() if id(p) in free]

    def averaged(self) -> dict[str, AnyArray]:
        """Copies of the averaged weights."""
        return module_arrays(self._module.averaged.module)

    def state(self) -> dict[str, AnyArray]:
        """Everything that a resumed training needs."""
        return {
            **module_arrays(self._module.model, "model"),
            **module_arrays(self._module.averaged, "averaged"),
            **optimizer_arrays(self._module.adamw, self._names),
        }

    def restore(self, arrays: Mapping[str, AnyArray]) -> None:
        """Put `state` back."""
        load_module(self._module.model, arrays, "model")
        load_module(self._module.averaged, arrays, "averaged")
        load_optimizer(self._module.adamw, self._names, arrays)

    def model(self, averaged: Mapping[str, AnyArray]) -> Model:
        """A model of its own with these weights, ready to predict."""
        model = cast(Model, copy.deepcopy(self._module.averaged.module))
        load_module(model, averaged)
        return model.to(self._device).eval()  # Lightning leaves what it trained on the CPU

    def run(self, book: EpochBook, logger: RunLogger) -> None:
        """Train until the book says stop or the epochs are done."""
        self._module.book = book
        run_lightning(self._module, book, logger, options=self._options, device=self._device)


class Bookkeeping(pl.Callback):
    """Tells the book of every batch and every epoch, and Lightning when to stop."""

    def __init__(self, book: EpochBook, logger: RunLogger, dataset: EpochDataset) -> None:
        self.book, self.logger, self.dataset = book, logger, dataset

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report, then look at the clock and the monitor."""
        self.book.after_batch(float(outputs["loss"]))
        trainer.should_stop = trainer.should_stop or self.book.stop

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the epoch."""
        module = cast(TrainingModule, pl_module)
        losses, module.validation_losses = module.validation_losses, []
        clock = module.plan.clock
        if row := self.book.close_epoch(losses):
            self.logger.log(row, clock.step)
        self.dataset.epoch = clock.epoch
        trainer.should_stop = trainer.should_stop or self.book.stop


@contextmanager
def signals_as_they_are() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the process as they do elsewhere; Lightning would end it with its own exit codes."""
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise SystemExit(128 + signal.SIGTERM) from None


def run_lightning(
    module: TrainingModule, book: EpochBook, logger: RunLogger, *, options: TorchOptions, device: torch.device
) -> None:
    """Run the loop to its end.

    Parameters
    ----------
    module:
        Holds the model, which is trained in place.
    book, logger:
        Steer and record.
    options, device:
        How.
    """
    quiet_lightning()
    plan, config = module.plan, module.plan.config
    limit = config.epoch_limit
    norm = config.gradient_clip_algorithm is ClipAlgorithm.NORM
    training = EpochDataset(plan.training.batches)
    training.epoch = plan.clock.epoch
    with warnings.catch_warnings(), arithmetic(deterministic=options.deterministic):
        # Advice about worker counts and logging intervals is for the author of a loop, not for its user.
        warnings.filterwarnings("ignore", module="lightning.*")
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            plugins=[LightningEnvironment()],  # one process, whatever job it is a part of
            max_epochs=-1 if limit is None else limit - plan.clock.epoch,
            min_epochs=0,
            accumulate_grad_batches=config.accumulate_grad_batches,
            gradient_clip_val=config.gradient_clip,
            gradient_clip_algorithm="norm" if norm else "value",
            callbacks=[Bookkeeping(book, logger, training)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        pin = device.type == "cuda"
        held = None if plan.validation is None else EpochDataset(plan.validation.batches)
        with signals_as_they_are():
            trainer.fit(
                module,
                loader(training, num_workers=options.num_workers, pin=pin),
                None if held is None else loader(held, num_workers=0, pin=pin),
            )


def quiet_lightning() -> None:
    """Keep Lightning's notes about devices out of the user's log."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
