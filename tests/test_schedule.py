"""The clock of a training: when it ends and its learning rate."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from ptychopinn.config import ResolvedTrainConfig, TrainConfig
from ptychopinn.config.train import Scheduler
from ptychopinn.schedule import TrainingClock


class Time:
    """Stands in for the time of day."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("ptychopinn.schedule.time", SimpleNamespace(monotonic=lambda: self.now))


def settings(**train: Any) -> ResolvedTrainConfig:
    return TrainConfig(**train).resolved(on_gpu=False)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def test_epochs_end_a_training(time: Time) -> None:
    clock = TrainingClock(settings(nepochs=2), steps_per_epoch=5)
    assert not clock.out_of_epochs
    clock.epoch, clock.step = 1, 5
    time.now += 1e6
    assert (clock.fraction, clock.out_of_epochs, clock.out_of_time) == (0.5, False, False)
    clock.epoch, clock.step = 2, 10
    assert (clock.fraction, clock.out_of_epochs) == (1.0, True)


def test_seconds_end_a_training(time: Time) -> None:
    """Without nepochs only the time counts; with both the first limit does."""
    alone = TrainingClock(settings(max_time=10), steps_per_epoch=5)
    both = TrainingClock(settings(max_time=10, nepochs=2), steps_per_epoch=5)
    for clock in (alone, both):
        clock.epoch, clock.step = 1, 6
    time.now += 4
    assert (alone.seconds, alone.fraction, both.fraction) == (4, 0.4, 0.6)
    assert not alone.out_of_time
    alone.epoch = 10_000
    assert not alone.out_of_epochs
    time.now += 6
    assert alone.out_of_time
    time.now += 100
    assert alone.fraction == 1.0


def test_a_resumed_clock_counts_on(time: Time) -> None:
    clock = TrainingClock(settings(nepochs=10, max_time=100), steps_per_epoch=5)
    time.now += 7
    clock.resume(epoch=3, step=15, seconds=40)
    time.now += 2
    assert (clock.epoch, clock.step, clock.seconds, clock.fraction) == (3, 15, 42, 0.42)


def rates(scheduler: Scheduler) -> list[float]:
    clock = TrainingClock(settings(nepochs=100, learning_rate=0.1, scheduler=scheduler), steps_per_epoch=10)
    found = []
    for clock.step in range(1001):
        found.append(clock.learning_rate())
    return found


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_every_course_warms_up_and_stays_within_its_bounds(scheduler: Scheduler) -> None:
    found = rates(scheduler)
    assert found[0] == pytest.approx(0.1 / 50, rel=0.01)
    assert all(a < b for a, b in pairwise(found[:40]))
    assert min(found) > 0
    assert max(found) <= 0.1


def test_courses_end_where_they_should() -> None:
    constant, cosine, exponential = (rates(s) for s in (Scheduler.CONSTANT, Scheduler.COSINE, Scheduler.EXPONENTIAL))
    assert set(constant[50:]) == {0.1}
    assert cosine[500] == pytest.approx(0.1 * 0.505)
    assert exponential[500] == pytest.approx(0.01)
    assert cosine[-1] == pytest.approx(1e-3)
    assert exponential[-1] == pytest.approx(1e-3)
