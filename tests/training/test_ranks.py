"""Orders, failures and values between processes, which are threads here. Requirements: specs/10-training.md."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from ptychopinn.errors import ResourceError
from ptychopinn.monitor import Monitor
from ptychopinn.training.ranks import Action, Order, Ranks
from ptychopinn.typing import AnyArray

LIMIT_S = 10.0


class Threads:
    """A channel of one thread; all have the same board and barrier."""

    connected = True

    def __init__(self, rank: int, board: list[AnyArray], barrier: Barrier) -> None:
        self.rank, self.count = rank, len(board)
        self._board, self._barrier = board, barrier

    def _exchange(self, array: AnyArray, combine: Callable[[list[AnyArray]], AnyArray]) -> None:
        self._board[self.rank] = array.copy()
        self._barrier.wait()
        array[:] = combine(self._board)
        self._barrier.wait()

    def broadcast(self, array: AnyArray, root: int) -> None:
        self._exchange(array, lambda board: board[root])

    def maximum(self, array: AnyArray) -> None:
        self._exchange(array, lambda board: np.max(board, axis=0))

    def add(self, tensor: AnyArray) -> None:
        self._exchange(tensor, lambda board: np.sum(board, axis=0))


def run(*roles: Callable[[Ranks], Any], monitor: Monitor | None = None) -> list[Any]:
    """What each process returns or raises; ``monitor`` is that of the last one."""
    board: list[AnyArray] = [np.zeros(0)] * len(roles)
    barrier = Barrier(len(roles), timeout=LIMIT_S)

    def play(rank: int) -> Any:
        watched = monitor if monitor is not None and rank == len(roles) - 1 else Monitor()
        try:
            return roles[rank](Ranks(Threads(rank, board, barrier), watched))
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(roles)) as pool:
        return list(pool.map(play, range(len(roles))))


def test_a_process_alone_waits_for_nobody() -> None:
    ranks = Ranks()
    with ranks.ordered(Order(Action.TRAIN)):
        assert ranks.together(lambda: 3) == 3
    ranks.add(np.zeros(1))
    ranks.end()
    assert (ranks.rank, ranks.count, ranks.share("mine"), ranks.cancelled) == (0, 1, "mine", False)


def test_others_do_what_the_first_one_orders() -> None:
    """[TRAIN-019]"""

    def lead(ranks: Ranks) -> None:
        for number in range(2):
            with ranks.ordered(Order(Action.TRAIN, 3, number, 0.1)):
                ranks.together(lambda: None)
        ranks.end()

    def follow(ranks: Ranks) -> list[Order]:
        orders = []
        while (order := ranks.next_order()).action is not Action.END:
            orders.append(order)
            ranks.together(lambda: None)
        return orders

    orders = [Order(Action.TRAIN, 3, 0, 0.1), Order(Action.TRAIN, 3, 1, 0.1)]
    assert run(lead, follow, follow) == [None, orders, orders]


def test_no_order_is_given_within_a_step() -> None:
    """[TRAIN-019] The others wait for something else then: an order would be taken for it."""

    def lead(ranks: Ranks) -> str:
        with pytest.raises(KeyboardInterrupt), ranks.ordered(Order(Action.TRAIN)):
            raise KeyboardInterrupt
        ranks.end()
        return "not held up"

    assert run(lead, lambda ranks: ranks.next_order().action) == ["not held up", Action.TRAIN]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failure_is_told_to_all(failing: int) -> None:
    """[TRAIN-020] In the words of the one that failed, which has its own exception."""

    def role(ranks: Ranks) -> int:
        return ranks.together(lambda: 1 // int(ranks.rank != failing))

    found = run(role, role, role)
    assert isinstance(found.pop(failing), ZeroDivisionError)
    for error in found:
        assert isinstance(error, ResourceError)
        assert f"Process {failing} of the training failed: This is a defect" in error.problem
        assert "ZeroDivisionError" in error.problem


def test_anyone_can_ask_to_stop() -> None:
    """[TRAIN-019]"""
    monitor = Monitor()
    monitor.cancel()

    def role(ranks: Ranks) -> bool:
        ranks.together(lambda: None)
        return ranks.cancelled

    assert run(role, role, monitor=monitor) == [True, True]


def test_values_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of any size, in messages of a limited one."""
    monkeypatch.setattr("ptychopinn.training.ranks.MAX_MESSAGE_BYTES", 1000)
    given = {"patterns": np.arange(5000.0).reshape(50, 100), "none": np.zeros((0, 3)), "text": "Å"}

    def role(ranks: Ranks) -> Any:
        return ranks.share(given if ranks.rank == 0 else None)

    first, *others = run(role, role, role)
    assert first is given
    for found in others:
        assert found["text"] == "Å"
        assert found["none"].shape == (0, 3)
        np.testing.assert_array_equal(found["patterns"], given["patterns"])
        found["patterns"][0] = 1  # its own


def test_tensors_are_added_up() -> None:
    def role(ranks: Ranks) -> list[float]:
        values = np.array([1.0, ranks.rank])
        ranks.add(values)
        return [float(value) for value in values]

    assert run(role, role, role) == [[3.0, 3.0]] * 3
