"""The state of a training: history, best weights, early stopping, checkpoints, progress, cancellation."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import BaseModel, JsonValue, ValidationError

from ptychopinn.bundle import HISTORY, ArchiveKind, Bundle, Manifest, writer_named
from ptychopinn.checkpoints import CheckpointStore
from ptychopinn.config.train import CheckpointMode, TrainConfig
from ptychopinn.cores import StarvationWatch
from ptychopinn.errors import ArchiveError, ConfigError, TrainingError
from ptychopinn.monitor import Monitor
from ptychopinn.reconstructor import TrainStatus
from ptychopinn.training.plan import CLOCK_FIGURES, TrainingPlan
from ptychopinn.typing import AnyArray

_log = logging.getLogger(__name__)
_CHECKPOINT_SECONDS = 20.0
_BEST = "best/"


class Trainable(Protocol):
    """What `TrainingState` saves and restores. Scalars are arrays of shape (1,)."""

    def averaged(self) -> dict[str, AnyArray]:
        """Copies of the averaged weights: the model if the training ended now."""
        ...

    def state(self) -> dict[str, AnyArray]:
        """Everything needed to resume: weights, their average, the moments of the optimizer."""
        ...

    def restore(self, arrays: Mapping[str, AnyArray]) -> None:
        """Restore `state`; raises ArchiveError if it does not fit."""
        ...


class ResumeState(BaseModel):
    """Content of a checkpoint besides tensors."""

    epoch: int
    step: int
    seconds: float
    patterns_seen: int
    best_figure: float | None
    best_epoch: int


@dataclass(frozen=True)
class LossReading:
    """Losses of the batches since the last reading."""

    sums: Mapping[str, float]  # sums over these batches of ``loss`` (the weighted sum of the terms) and of each term
    batches: int
    newest: float  # loss of the last batch
    # Step and loss of the first batch whose loss or gradient is not finite (it was not used), or None.
    not_finite: tuple[int, float] | None = None

    @classmethod
    def of(cls, names: Sequence[str], values: Sequence[float], batches: int) -> LossReading:
        """From a sum for each name, the newest loss, and the first step that is not finite, which may be infinite."""
        *sums, newest, step = values
        not_finite = (int(step), sums[0]) if math.isfinite(step) else None
        return cls(dict(zip(names, sums, strict=True)), batches, newest, not_finite)


def read_step(loss: float, terms: Mapping[str, float], step: int) -> LossReading:
    """The reading of one batch, taken before its gradient is used."""
    return LossReading({"loss": loss, **terms}, 1, loss, None if math.isfinite(loss) else (step, loss))


class TrainingState:
    """State of a training. A backend reports every batch and every epoch to it.

    Losses can be reported later than their batches and several together (`record`), to avoid waiting for the device at
    every step. Clock and monitor are checked after every batch.

    Parameters
    ----------
    weights:
        Saves and restores what is trained.
    store:
        Store of the checkpoints, or None.
    start:
        Tensors to add to every checkpoint, so that a resumed training does not compute them again.

    Raises
    ------
    ConfigError
        If checkpoint_monitor is not a figure of this training.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        weights: Trainable,
        store: CheckpointStore | None,
        manifest: Manifest,
        monitor: Monitor,
        start: Mapping[str, AnyArray],
    ) -> None:
        self._plan, self._config, self._clock = plan, plan.config, plan.clock
        self._weights, self._store, self._monitor, self._start = weights, store, monitor, start
        self._manifest = manifest.model_copy(update={"kind": ArchiveKind.CHECKPOINT})
        self._monitored = _monitored_figure(plan.config, plan.figures)
        # As in `ptychopinn.reconstructor.TrainResult`.
        self.history: dict[str, list[float]] = {name: [] for name in (*CLOCK_FIGURES, "loss")}
        self.status = TrainStatus.FINISHED  # how the training ended
        self.stop = False  # whether to end after this batch
        self.patterns_seen = 0
        self.warnings: list[str] = []  # for the user, as sentences
        self.watch: StarvationWatch | None = None  # notices that the training gets too little of the processor
        self._sums: dict[str, float] = {}
        self._batches, self._done = 0, 0
        self._newest = math.nan
        self._best_figure, self._best_epoch = math.inf, 0
        self._best = weights.averaged()
        self._saved_at = self._clock.seconds

    def resume(self) -> None:
        """Resume from the newest checkpoint, if there is one.

        Raises
        ------
        ConfigError, ArchiveError
            If it belongs to another network.
        """
        bundle = None if self._store is None else self._store.newest()
        if bundle is None:
            return
        if bundle.manifest.model != self._manifest.model:
            raise ConfigError(
                "The checkpoint belongs to a network of another configuration.",
                "Resume with its configuration, or start again with --overwrite.",
            )
        with writer_named(bundle.manifest):
            state, history = self._restored(bundle)
        self._best = _under(_BEST, bundle.weights)
        self.history = {name: values.tolist() for name, values in history.items()}
        self._best_figure = math.inf if state.best_figure is None else state.best_figure
        self._best_epoch, self.patterns_seen = state.best_epoch, state.patterns_seen
        self._clock.resume(epoch=state.epoch, step=state.step, seconds=state.seconds)
        self._done = state.epoch * len(self._plan.training.batches)
        self._saved_at = self._clock.seconds
        _log.info("Resuming after epoch %d, %.0f s of training.", state.epoch, state.seconds)

    def _restored(self, bundle: Bundle) -> tuple[ResumeState, dict[str, AnyArray]]:
        """Restore the weights of a checkpoint; return its progress and history."""
        try:
            state = ResumeState.model_validate(bundle.manifest.extra.get("state"))
        except ValidationError as error:
            raise ArchiveError(
                f"The checkpoint does not say how far the training was: {error.errors()[0]['msg']}.",
                "Remove it, or start again with --overwrite.",
            ) from error
        history = _under(HISTORY, bundle.weights)
        if not self.history.keys() <= history.keys() or {v.shape for v in history.values()} != {(state.epoch,)}:
            raise ArchiveError(
                f"The checkpoint lacks the history of its {state.epoch} epochs.",
                "Remove it, or start again with --overwrite.",
            )
        self._weights.restore(bundle.weights)
        return state, history

    def is_over(self) -> bool:
        """Whether the training is over before its first batch; sets the status."""
        if self._monitor.cancelled:
            self.status = TrainStatus.CANCELLED
        elif self._clock.out_of_time and self._clock.epoch > 0:  # a fresh training does at least one step
            self.status = TrainStatus.TIMED_OUT
        return self.status is not TrainStatus.FINISHED or self._clock.out_of_epochs

    @property
    def cancelled(self) -> bool:
        """Whether the training was cancelled; it should then end without validation."""
        return self.status is TrainStatus.CANCELLED

    def record(self, reading: LossReading) -> None:
        """Record the losses of some batches. Raises TrainingError if one of them, or its gradient, is not finite."""
        if reading.not_finite is not None:
            step, loss = reading.not_finite
            what = "The gradient of the loss is not finite" if math.isfinite(loss) else f"The loss is {loss}"
            raise TrainingError(
                f"{what} at step {step} of epoch {self._clock.epoch}; the model keeps its last good weights.",
                "Lower --learning-rate, check the data with 'ptychopinn validate', or set --precision 32.",
            )
        for name, value in reading.sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._batches += reading.batches
        self._newest = reading.newest

    def after_batch(self, number: int, patterns: int) -> None:
        """Count a batch, from 0 in its epoch, and its step; report progress, and check monitor and clock."""
        clock = self._clock
        self._done += 1
        self.patterns_seen += patterns
        if self._plan.makes_step(number):
            clock.step += 1
        done, total = self._done, self._plan.total_batches
        if clock.time_limit is not None:  # seconds, since they end it
            done, total = int(clock.seconds), math.ceil(clock.time_limit)
        self._monitor.report("train", done, total, {"epoch": float(clock.epoch + 1), "loss": self._newest})
        if self._monitor.cancelled:
            self.cancel()
        elif clock.out_of_time:
            self.status, self.stop = TrainStatus.TIMED_OUT, True
            self._check_first_epoch(number + 1)
        if self.watch is not None and (starving := self.watch.notice()) is not None:
            _log.warning("%s", starving)

    def cancel(self) -> None:
        """End the training after this batch."""
        self.status, self.stop = TrainStatus.CANCELLED, True

    def _check_first_epoch(self, batches: int) -> None:
        """Warn if time ran out after some batches of the first epoch."""
        clock, in_epoch = self._clock, len(self._plan.training.batches)
        if clock.epoch == 0 and batches < in_epoch:
            self.warnings.append(
                f"max_time of {clock.time_limit:g} s ended the training in its first epoch, after {batches} of "
                f"{in_epoch} batches: the model has not seen the whole scan. An epoch takes about "
                f"{clock.seconds * in_epoch / batches:.0f} s."
            )

    def close_epoch(self, validation_losses: Sequence[float] = ()) -> dict[str, float]:
        """Close an epoch: history, best weights, early stopping, checkpoint.

        Parameters
        ----------
        validation_losses:
            Loss of each validation batch; empty without validation.

        Returns
        -------
        The figures of the epoch; empty if it had no batch.
        """
        if not self._batches:
            return {}
        clock = self._clock
        clock.epoch += 1
        row = {"epoch": float(clock.epoch), "seconds": clock.seconds, "learning_rate": clock.learning_rate()}
        row |= {name: total / self._batches for name, total in self._sums.items()}
        if validation_losses:
            row["validation_loss"] = sum(validation_losses) / len(validation_losses)
        self._sums, self._batches = {}, 0
        self._append(row)
        figure = row.get(self._monitored)
        if figure is not None:
            sign = 1.0 if self._config.checkpoint_mode is CheckpointMode.MIN else -1.0
            if sign * figure < self._best_figure:
                self._best_figure, self._best_epoch = sign * figure, clock.epoch
                self._best = self._weights.averaged()
        patience = self._config.early_stopping_patience
        if not self.stop and patience is not None and clock.epoch - self._best_epoch >= patience:
            self.status, self.stop = TrainStatus.STOPPED_EARLY, True
        every = self._config.checkpoint_every
        due = clock.seconds - self._saved_at > _CHECKPOINT_SECONDS if every is None else clock.epoch % every == 0
        if self._store is not None and (due or self.stop or clock.out_of_epochs):
            self._save(self._store, figure)
        return row

    def final_weights(self) -> dict[str, AnyArray]:
        """The weights of the model: the best ones with validation or early stopping, else the newest finite ones."""
        newest = self._weights.averaged()
        chosen = "validation_loss" in self.history or self._config.early_stopping_patience is not None
        finite = all(bool(np.isfinite(array).all()) for array in newest.values())
        return self._best if (chosen and self._best_epoch) or not finite else newest

    def _append(self, row: Mapping[str, float]) -> None:
        rows = max((len(values) for values in self.history.values()), default=0)
        for name in {**self.history, **row}:
            self.history.setdefault(name, [math.nan] * rows).append(row.get(name, math.nan))

    def _save(self, store: CheckpointStore, figure: float | None) -> None:
        clock = self._clock
        state = ResumeState(
            epoch=clock.epoch,
            step=clock.step,
            seconds=clock.seconds,
            patterns_seen=self.patterns_seen,
            best_figure=self._best_figure if math.isfinite(self._best_figure) else None,
            best_epoch=self._best_epoch,
        )
        best = {_BEST + name: array for name, array in self._best.items()}
        history = {HISTORY + name: np.array(values) for name, values in self.history.items()}  # grows without bound
        tensors = {**self._weights.state(), **best, **history, **self._start}
        extra: dict[str, JsonValue] = {**self._manifest.extra, "state": state.model_dump(mode="json")}
        store.save(clock.epoch, self._manifest.model_copy(update={"extra": extra}), tensors, figure)
        self._saved_at = clock.seconds


def _under(prefix: str, tensors: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def _monitored_figure(config: TrainConfig, figures: Sequence[str]) -> str:
    """Name of the figure that ranks checkpoints and stops early."""
    name = config.checkpoint_monitor
    if name == "auto":
        return "validation_loss" if "validation_loss" in figures else "loss"
    if name not in (known := [*CLOCK_FIGURES, *figures]):
        raise ConfigError(
            f"checkpoint_monitor '{name}' is not a figure of this training.",
            f"Choose one of: auto, {', '.join(known)}.",
        )
    return name
