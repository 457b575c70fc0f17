"""The clock of a training: progress, end, and learning rate, the same in every backend."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ptychopinn.config.train import ResolvedTrainConfig, Scheduler

_WARM_UP_STEPS = 50
_FINAL = 0.01  # of the peak learning rate


class TrainingClock:
    """Counts epochs, steps and seconds, also of resumed trainings."""

    def __init__(self, config: ResolvedTrainConfig, steps_per_epoch: int) -> None:
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self.resume(epoch=0, step=0, seconds=0.0)

    def resume(self, *, epoch: int, step: int, seconds: float) -> None:
        """Continue counting from an earlier run."""
        self.epoch, self.step, self._before = epoch, step, seconds
        self._start = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of a block."""
        seconds = self.seconds
        yield
        self.resume(epoch=self.epoch, step=self.step, seconds=seconds)

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._before + time.monotonic() - self._start

    @property
    def time_limit(self) -> float | None:
        """Seconds after which the training ends, or None."""
        return self._config.max_time

    @property
    def out_of_time(self) -> bool:
        """Whether max_time is reached."""
        return self._config.max_time is not None and self.seconds >= self._config.max_time

    @property
    def out_of_epochs(self) -> bool:
        """Whether all epochs are done."""
        limit = self._config.epoch_limit
        return limit is not None and self.epoch >= limit

    @property
    def fraction(self) -> float:
        """Fraction of the training that is done, by the limit that comes first; 0 to 1."""
        shares = [0.0]
        if (limit := self._config.epoch_limit) is not None:
            shares.append(self.step / (limit * self._steps_per_epoch))
        if self._config.max_time is not None:
            shares.append(self.seconds / self._config.max_time)
        return min(max(shares), 1.0)

    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        warm = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        return self._config.learning_rate * warm * _rate_factor(self._config.scheduler, self.fraction)


def _rate_factor(scheduler: Scheduler, fraction: float) -> float:
    """Factor on the peak learning rate at a fraction of the training."""
    if scheduler is Scheduler.COSINE:
        return _FINAL + (1 - _FINAL) * 0.5 * (1 + math.cos(math.pi * fraction))
    if scheduler is Scheduler.EXPONENTIAL:
        return math.exp(math.log(_FINAL) * fraction)
    return 1.0
