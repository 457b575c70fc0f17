"""Batches that are made ahead by threads."""

from __future__ import annotations

import threading
import time

import pytest

from ptychopinn.training import prefetch


def running() -> int:
    return sum(thread.name.startswith("batches") for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_all_come_in_order(workers: int, count: int) -> None:
    def make(number: int) -> int:
        time.sleep(0.002 * (number % 3))  # later ones are ready before
        return number * number

    assert list(prefetch(make, count, workers)) == [number * number for number in range(count)]
    assert running() == 0


def test_only_a_few_are_made_ahead() -> None:
    made: list[int] = []
    batches = prefetch(lambda number: made.append(number) or number, 1000, 2)  # type: ignore[func-returns-value]
    assert [next(batches) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert running() > 0
    batches.close()
    assert running() == 0
    assert len(made) <= 5 + 3


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_in_its_turn(workers: int) -> None:
    def make(number: int) -> int:
        if number == 2:
            raise OSError("the disk is gone")
        return number

    batches = prefetch(make, 1000, workers)
    assert [next(batches) for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert running() == 0


def test_without_threads_batches_are_made_by_the_caller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[RUN-003] Errors come in their turn."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def make(number: int) -> int:
        return 1 // (3 - number)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    batches = prefetch(make, 5, 2)
    assert [next(batches) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(batches)
    assert "Threads cannot be started" in caplog.text
