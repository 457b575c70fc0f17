"""The training loop: Lightning drives it, a few callbacks steer it."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from pydantic import BaseModel, JsonValue
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ptychopinn.bundle import ArchiveKind, Bundle, Manifest
from ptychopinn.checkpoints import CheckpointStore
from ptychopinn.config.execution import LoggerKind
from ptychopinn.config.train import CheckpointMode, ClipAlgorithm, TrainConfig
from ptychopinn.errors import ConfigError, PluginError, TrainingError, UsageError
from ptychopinn.monitor import Monitor
from ptychopinn.reconstructor import TrainStatus
from ptychopinn.schedule import TrainingClock
from ptychopinn_torch.batches import EpochDataset, TensorBatch, loader
from ptychopinn_torch.checkpoint import load_module, load_optimizer, module_arrays, optimizer_arrays
from ptychopinn_torch.model import Model
from ptychopinn_torch.objective import Objective, Terms
from ptychopinn_torch.options import TorchOptions

_log = logging.getLogger("ptychopinn.torch")
_CHECKPOINT_SECONDS = 20.0
_PROBE_RATE = 0.2  # of the network's learning rate: the probe is nearly right, the network is not
_OFFSET_RATE = 0.02  # of the offset that a batch shows, a step: averages over fifty batches
_WEIGHT_DECAY = 1e-4
_CLOCK_FIGURES = ("epoch", "seconds", "learning_rate")


class TrainingModule(pl.LightningModule):
    """A model, its running average, and the objectives of training and validation scans.

    Parameters
    ----------
    model:
        Trained in place.
    objective, validation:
        Losses; validation may be None.
    config:
        Training configuration.
    follow_offset:
        Whether the detector's offset follows the mean phase gradient.
    clock:
        Gives the learning rate.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        validation: Objective | None,
        config: TrainConfig,
        *,
        follow_offset: bool,
        clock: TrainingClock,
    ) -> None:
        super().__init__()
        self.model, self.objective, self.validation_objective = model, objective, validation
        self.config, self.follow_offset, self.clock = config, follow_offset, clock
        self.averaged = AveragedModel(model, multi_avg_fn=_running_average(config.weight_averaging))
        light = model.illumination
        light.values.requires_grad_(config.probe_trainable)
        light.log_intensity.requires_grad_(config.intensity_scale_trainable)
        self.patterns_seen = 0
        self.sums: dict[str, float] = {}
        self.batches = 0
        self.validation_sums: list[float] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over network and whatever physics is free."""
        light = self.model.illumination
        groups: list[dict[str, Any]] = [{"params": list(self.model.network.parameters()), "rate": 1.0}]
        if self.config.probe_trainable:
            groups.append({"params": [light.values], "rate": _PROBE_RATE, "weight_decay": 0.0})
        if self.config.intensity_scale_trainable:
            groups.append({"params": [light.log_intensity], "rate": _PROBE_RATE, "weight_decay": 0.0})
        return torch.optim.AdamW(groups, lr=self.config.learning_rate, weight_decay=_WEIGHT_DECAY, betas=(0.9, 0.99))

    def transfer_batch_to_device(self, batch: TensorBatch, device: torch.device, dataloader_idx: int) -> TensorBatch:
        """Move a batch, which is our own type."""
        return batch.to(device)

    def on_train_batch_start(self, batch: TensorBatch, batch_idx: int) -> None:
        """Set the learning rate of the coming step."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, pl.core.optimizer.LightningOptimizer)  # there is one
        for group in optimizer.param_groups:
            group["lr"] = self.clock.learning_rate() * group["rate"]

    def training_step(self, batch: TensorBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        terms: Terms = self.objective(self.model, batch)
        loss = float(terms.total.detach())
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at step {self.clock.step} of epoch {self.clock.epoch}; the model keeps its last "
                "good weights.",
                "Lower --learning-rate, check the data with 'ptychopinn validate', or set --precision 32.",
            )
        self.sums["loss"] = self.sums.get("loss", 0.0) + loss
        for name, value in terms.parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        self.batches += 1
        self.patterns_seen += batch.patterns
        if self.follow_offset and terms.gradient is not None:
            n = self.model.illumination.values.shape[-2]
            self.model.illumination.offset_px += _OFFSET_RATE * terms.gradient * n / (2 * torch.pi)
        return terms.total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then move the running average."""
        super().optimizer_step(*args, **kwargs)
        self.averaged.update_parameters(self.model)
        self.clock.step += 1

    def validation_step(self, batch: TensorBatch, batch_idx: int) -> None:
        """Loss of one validation batch under the averaged weights."""
        assert self.validation_objective is not None  # there is a loader only with it
        terms = self.validation_objective(self.averaged.module, batch)
        self.validation_sums.append(float(terms.total))

    def take_figures(self) -> dict[str, float]:
        """Mean figures of the epoch that ends, and a fresh start for the next."""
        figures = {name: total / max(self.batches, 1) for name, total in self.sums.items()}
        if self.validation_sums:
            figures["validation_loss"] = sum(self.validation_sums) / len(self.validation_sums)
        self.sums, self.batches, self.validation_sums = {}, 0, []
        return figures


_Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]


def _running_average(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """Exponential average whose memory grows up to ``decay``, so that a short training forgets where it began."""

    @torch.no_grad()
    def update(averaged: _Tensors, current: _Tensors, count: Tensor | int) -> None:
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averaged, current, 1 - keep)

    return update


class EpochKeeper(pl.Callback):
    """Keeps the history, the best model and the checkpoints; ends a training that makes no more progress.

    Parameters
    ----------
    module, dataset:
        What is trained, and on what.
    config:
        Early stopping and checkpoints.
    store:
        Where checkpoints go, or None.
    manifest:
        Of the model; checkpoints carry it.
    figures:
        Names of the figures that an epoch has besides those of the clock.

    Raises
    ------
    ConfigError
        If checkpoint_monitor is none of them.
    """

    def __init__(
        self,
        module: TrainingModule,
        dataset: EpochDataset,
        config: TrainConfig,
        store: CheckpointStore | None,
        manifest: Manifest,
        figures: list[str],
    ) -> None:
        self.module, self.dataset, self.config, self.store = module, dataset, config, store
        self.manifest = manifest.model_copy(update={"kind": ArchiveKind.CHECKPOINT})
        self.history: dict[str, list[float]] = {name: [] for name in (*_CLOCK_FIGURES, "loss")}
        self._monitored = _monitored_figure(config, figures)
        self.status = TrainStatus.FINISHED
        self._best_figure = math.inf
        self._best_epoch = 0
        self._best: dict[str, Tensor] = _copy_of(module.averaged.module)
        self._saved_at = module.clock.seconds
        self._resume: Bundle | None = None

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one."""
        self._resume = None if self.store is None else self.store.newest()
        if self._resume is None:
            return
        arrays, extra = dict(self._resume.weights), self._resume.manifest.extra
        if self._resume.manifest.model != self.manifest.model:
            raise ConfigError(
                "The checkpoint belongs to a network of another configuration.",
                "Resume with the configuration it began with, or start anew with --overwrite.",
            )
        load_module(self.module.model, arrays, "model")
        load_module(self.module.averaged, arrays, "averaged")
        best = copy.deepcopy(self.module.averaged.module)
        load_module(best, arrays, "best")
        self._best = _copy_of(best)
        state = ResumeState.model_validate(extra["state"])
        self.history = {k: [math.nan if x is None else x for x in v] for k, v in state.history.items()}
        self._best_figure = math.inf if state.best_figure is None else state.best_figure
        self._best_epoch, self.module.patterns_seen = state.best_epoch, state.patterns_seen
        clock = self.module.clock
        clock.resume(epoch=state.epoch, step=state.step, seconds=state.seconds)
        self.dataset.epoch = state.epoch
        self._saved_at = clock.seconds
        _log.info("Resuming after epoch %d, %.0f s of training.", state.epoch, state.seconds)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the optimizer's moments back, once there is an optimizer."""
        if self._resume is not None:
            load_optimizer(trainer.optimizers[0], dict(self._resume.weights))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the epoch: history, best model, early stopping, checkpoint."""
        clock, figures = self.module.clock, self.module.take_figures()
        if not figures:
            return
        clock.epoch += 1
        self.dataset.epoch = clock.epoch
        row = {
            "epoch": float(clock.epoch),
            "seconds": clock.seconds,
            "learning_rate": clock.learning_rate(),
            **figures,
        }
        self._append(row)
        if trainer.loggers:
            for logger in trainer.loggers:
                logger.log_metrics(row, step=clock.step)
        name = self._monitored
        sign = 1.0 if self.config.checkpoint_mode is CheckpointMode.MIN else -1.0
        better = sign * row[name] < self._best_figure
        if better:
            self._best_figure, self._best_epoch = sign * row[name], clock.epoch
            self._best = _copy_of(self.module.averaged.module)
        patience = self.config.early_stopping_patience
        if patience is not None and clock.epoch - self._best_epoch >= patience:
            self.status = TrainStatus.STOPPED_EARLY
            trainer.should_stop = True
        every = self.config.checkpoint_every
        due = clock.seconds - self._saved_at > _CHECKPOINT_SECONDS if every is None else clock.epoch % every == 0
        if self.store is not None and (due or trainer.should_stop or clock.out_of_epochs):
            self._save(trainer.optimizers[0], row[name])

    def best_model(self) -> Model:
        """The model to keep: the best on validation, or the newest where there is none or patience ran out."""
        model = copy.deepcopy(self.module.averaged.module)
        chosen = "validation_loss" in self.history or self.config.early_stopping_patience is not None
        if chosen or not _finite(model):
            model.load_state_dict(self._best)
        return cast(Model, model)

    def _append(self, row: dict[str, float]) -> None:
        rows = max((len(values) for values in self.history.values()), default=0)
        for name in {**self.history, **row}:
            self.history.setdefault(name, [math.nan] * rows).append(row.get(name, math.nan))

    def _save(self, optimizer: torch.optim.Optimizer, figure: float) -> None:
        assert self.store is not None  # asked before
        clock = self.module.clock
        state = ResumeState(
            epoch=clock.epoch,
            step=clock.step,
            seconds=clock.seconds,
            patterns_seen=self.module.patterns_seen,
            best_figure=self._best_figure if math.isfinite(self._best_figure) else None,
            best_epoch=self._best_epoch,
            history={k: [x if math.isfinite(x) else None for x in v] for k, v in self.history.items()},
        )
        best = copy.deepcopy(self.module.averaged.module)
        best.load_state_dict(self._best)
        arrays = {
            **module_arrays(self.module.model, "model"),
            **module_arrays(self.module.averaged, "averaged"),
            **module_arrays(best, "best"),
            **optimizer_arrays(optimizer),
        }
        extra: dict[str, JsonValue] = {"state": state.model_dump(mode="json")}
        self.store.save(clock.epoch, self.manifest.model_copy(update={"extra": extra}), arrays, figure)
        self._saved_at = clock.seconds


def _monitored_figure(config: TrainConfig, figures: list[str]) -> str:
    """Name of the figure that ranks checkpoints and stops early."""
    name = config.checkpoint_monitor
    if name == "auto":
        return "validation_loss" if "validation_loss" in figures else "loss"
    if name not in (known := [*_CLOCK_FIGURES, *figures]):
        raise ConfigError(
            f"checkpoint_monitor '{name}' is not a figure of this training.",
            f"Choose one of: auto, {', '.join(known)}.",
        )
    return name


class ResumeState(BaseModel):
    """What a checkpoint says besides tensors."""

    epoch: int
    step: int
    seconds: float
    patterns_seen: int
    best_figure: float | None
    best_epoch: int
    history: dict[str, list[float | None]]


def _copy_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _finite(module: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in module.parameters())


class StepControl(pl.Callback):
    """Reports every step, and ends the training when the time is up or somebody asks."""

    def __init__(
        self, clock: TrainingClock, monitor: Monitor, keeper: EpochKeeper, total_batches: int, *, done: int
    ) -> None:
        self.clock, self.monitor, self.keeper, self.total, self.done = clock, monitor, keeper, total_batches, done

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report, then look at the clock and the monitor."""
        self.done += 1
        done, total = self.done, self.total
        if self.clock.time_limit is not None:  # seconds, since they end it
            done, total = int(self.clock.seconds), math.ceil(self.clock.time_limit)
        loss = float(outputs["loss"])
        self.monitor.report("train", done, total, {"epoch": float(self.clock.epoch + 1), "loss": loss})
        if self.monitor.cancelled:
            self.keeper.status = TrainStatus.CANCELLED
            trainer.should_stop = True
        elif self.clock.out_of_time:
            self.keeper.status = TrainStatus.TIMED_OUT
            trainer.should_stop = True


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Switch torch's deterministic algorithms on or off for a while, and put back what was."""
    before = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=lenient)


def make_logger(kind: LoggerKind, folder: Path | None) -> Logger | bool:
    """The Lightning logger for an option; trackers are imported only here.

    Raises
    ------
    PluginError
        If the tracker is not installed.
    UsageError
        If there is no folder to log into.
    """
    if kind is LoggerKind.NONE:
        return False
    if folder is None:
        raise UsageError(f"logger '{kind}' needs a folder to write to.", "Give train() a checkpoint_dir.")
    if kind is LoggerKind.CSV:
        return CSVLogger(str(folder), name="csv")
    try:
        if kind is LoggerKind.TENSORBOARD:
            from lightning.pytorch.loggers import TensorBoardLogger

            return TensorBoardLogger(str(folder), name="tensorboard")
        from lightning.pytorch.loggers import MLFlowLogger

        return MLFlowLogger(experiment_name="ptychopinn", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    except ModuleNotFoundError as error:
        raise PluginError(
            f"logger '{kind}' is not installed: {error}.", f"python -m pip install 'ptychopinn-torch[{kind}]'"
        ) from error


def run_lightning(
    module: TrainingModule,
    training: EpochDataset,
    validation: EpochDataset | None,
    *,
    config: TrainConfig,
    options: TorchOptions,
    device: torch.device,
    callbacks: list[pl.Callback],
    logger: Logger | bool,
) -> None:
    """Run the loop to its end.

    Parameters
    ----------
    module:
        Holds the model, which is trained in place.
    training, validation:
        Batches; validation may be None.
    config, options, device:
        How.
    callbacks:
        Steer and record.
    logger:
        From `make_logger`.
    """
    limit = config.epoch_limit
    norm = config.gradient_clip_algorithm is ClipAlgorithm.NORM
    with warnings.catch_warnings(), deterministic_algorithms(options.deterministic):
        # Advice about worker counts and logging intervals is for the author of a loop, not for its user.
        warnings.filterwarnings("ignore", module="lightning.*")
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            max_epochs=-1 if limit is None else limit - module.clock.epoch,
            min_epochs=0,
            accumulate_grad_batches=config.accumulate_grad_batches,
            gradient_clip_val=config.gradient_clip,
            gradient_clip_algorithm="norm" if norm else "value",
            callbacks=callbacks,
            logger=logger,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        pin = device.type == "cuda"
        workers = options.num_workers
        trainer.fit(
            module,
            loader(training, num_workers=workers, pin=pin),
            None if validation is None else loader(validation, num_workers=0, pin=pin),
        )


def quiet_lightning() -> None:
    """Keep Lightning's notes about devices out of the user's log."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
