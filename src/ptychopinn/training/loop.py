"""The loop over the epochs of a training, the same in every backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from typing import NoReturn, Protocol, TypeVar

from ptychopinn.training.loggers import RunLogger
from ptychopinn.training.plan import TrainingPlan
from ptychopinn.training.ranks import Action, Order
from ptychopinn.training.readings import ReadingClock
from ptychopinn.training.sources import Batch, BatchLoader
from ptychopinn.training.state import LossReading, Trainable, TrainingState
from ptychopinn.typing import AnyArray

ModelT_co = TypeVar("ModelT_co", covariant=True)


class LossMeter(Protocol):
    """Sums losses of batches on the device."""

    batches: int  # since the last reading

    def read(self) -> LossReading:
        """The losses since the last reading, in one transfer; resets the sums."""
        ...


class Fit(Trainable, Protocol[ModelT_co]):
    """A training in one framework: the model, its optimizer, and the loop."""

    def run(self, state: TrainingState, logger: RunLogger) -> None:
        """Train until ``state`` says that it is over, or the epochs are done."""
        ...

    def follow(self) -> None:
        """Train as the first of several processes orders; see `EpochLoop.follow`."""
        ...

    def model(self, averaged: Mapping[str, AnyArray]) -> ModelT_co:
        """A separate model with these weights, ready to predict."""
        ...


class EpochLoop(ABC):
    """Runs the epochs of a training; a subclass trains on a batch, and has a `LossMeter`."""

    _meter: LossMeter

    def __init__(
        self, plan: TrainingPlan, training: BatchLoader, validation: BatchLoader | None, *, on_gpu: bool
    ) -> None:
        self._plan, self._source, self._validation_source, self._ranks = plan, training, validation, plan.ranks
        self._readings = ReadingClock(on_gpu=on_gpu)

    @abstractmethod
    def train_on(self, batch: Batch, *, rate: float, makes_step: bool) -> None:
        """Accumulate the gradient of a batch, and make a step of this learning rate with the accumulated gradients."""

    @abstractmethod
    def validation_losses(self, batches: Iterable[Batch]) -> list[float]:
        """Loss of each validation batch under the averaged weights."""

    def run(self, state: TrainingState, logger: RunLogger) -> None:
        """Train until `state` says stop or the epochs are done."""
        clock = self._plan.clock
        while not (state.stop or clock.out_of_epochs):
            self._run_epoch(state)
            if row := state.close_epoch(self._validate()):
                logger.log(row, clock.step)

    def _run_epoch(self, state: TrainingState) -> None:
        clock = self._plan.clock
        with closing(self._source.batches(clock.epoch)) as batches:
            for number, batch in enumerate(batches):
                rate = clock.learning_rate()
                with self._ranks.ordered(Order(Action.TRAIN, clock.epoch, number, rate)):
                    self.train_on(batch, rate=rate, makes_step=self._plan.makes_step(number))
                if self._readings.due():
                    state.record(self._meter.read())
                state.after_batch(number, batch.patterns)
                if self._ranks.cancelled:
                    state.cancel()
                if state.stop:
                    break
        if self._meter.batches:
            state.record(self._meter.read())

    def _validate(self) -> list[float]:
        if self._validation_source is None:
            return []
        with self._ranks.ordered(Order(Action.VALIDATE)):
            return self._losses_of(self._validation_source)

    def _losses_of(self, source: BatchLoader) -> list[float]:
        with closing(source.batches(0)) as batches:
            return self.validation_losses(batches)

    def follow(self) -> None:
        """Do what the first process orders, until it ends the training."""
        with ExitStack() as epoch:
            while (order := self._ranks.next_order()).action is not Action.END:
                if order.action is Action.VALIDATE:
                    assert self._validation_source is not None
                    self._losses_of(self._validation_source)
                    continue
                if order.number == 0:
                    epoch.close()
                    batches = epoch.enter_context(closing(self._source.batches(order.epoch)))
                try:
                    batch = next(batches)
                except Exception as error:  # the others wait for this batch
                    self._ranks.together(partial(_fail, error))
                self.train_on(batch, rate=order.rate, makes_step=self._plan.makes_step(order.number))


def _fail(error: Exception) -> NoReturn:
    raise error
