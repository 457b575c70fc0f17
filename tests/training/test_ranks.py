"""Orders, failures and values between processes: threads here, over TCP. Requirements: specs/10-training.md."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from socket import SHUT_RDWR, create_connection
from threading import Timer
from typing import Any

import numpy as np
import pytest

from ptychopinn.errors import ResourceError
from ptychopinn.monitor import Monitor
from ptychopinn.training.ranks import Action, Order, Ranks
from ptychopinn.training.sockets import Entrance, SocketChannel, call, entrance_channel

LIMIT_S = 30.0
HERE = "127.0.0.1"


def run(*roles: Callable[[Ranks], Any], monitor: Monitor | None = None) -> list[Any]:
    """What each process returns or raises; ``monitor`` is that of the last one."""
    entrance = Entrance(HERE, 0, "ours")

    def play(rank: int) -> Any:
        watched = monitor if monitor is not None and rank == len(roles) - 1 else Monitor()
        with closing(channel_of(entrance, rank, len(roles))) as channel:
            try:
                return roles[rank](Ranks(channel, watched))
            except Exception as error:
                return error

    with ThreadPoolExecutor(len(roles)) as pool:
        return list(pool.map(play, range(len(roles)), timeout=LIMIT_S))


def channel_of(entrance: Entrance, rank: int, count: int) -> SocketChannel:
    if rank == 0:
        return entrance_channel(entrance, count)
    return SocketChannel(rank, count, lambda: call(HERE, entrance.port, "ours", rank))


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


def test_a_process_that_ends_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-020]"""
    monkeypatch.setattr("ptychopinn.training.processes.LAST_WORDS_S", 0.0)

    def role(ranks: Ranks) -> None:
        ranks.together(lambda: None)
        if ranks.rank != 1:
            ranks.together(lambda: None)

    first, ended, last = run(role, role, role)
    assert ended is None
    for error in (first, last):  # the first one ends then, and with it the last
        assert isinstance(error, ResourceError)
        assert "lost another one" in error.problem


def test_a_process_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-020] After half an hour; and who started it looks meanwhile whether it is stopped."""
    monkeypatch.setattr("ptychopinn.training.processes.LAST_WORDS_S", 0.0)
    for name, value in (("MAX_SILENCE_S", 0.2), ("_TICK_S", 0.05)):
        monkeypatch.setattr(f"ptychopinn.training.sockets.{name}", value)
    looks = 0

    def watch() -> None:
        nonlocal looks
        looks += 1

    with closing(Entrance(HERE, 0, "ours")) as entrance, ThreadPoolExecutor(1) as pool:
        silent = pool.submit(call, HERE, entrance.port, "ours", 1)
        with closing(entrance_channel(entrance, 2, watch)) as channel:
            channel.connect()
            met, (connection,) = looks, silent.result()
            limit = Timer(LIMIT_S, connection.shutdown, (SHUT_RDWR,))
            limit.start()
            with closing(connection), pytest.raises(ResourceError, match="s: timed out"):
                channel.maximum(np.zeros(1))
            limit.cancel()
        assert looks > met + 1


def test_strangers_are_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not of the training, or says nothing, keeps nobody waiting."""
    monkeypatch.setattr("ptychopinn.training.sockets.JOIN_S", LIMIT_S)
    with closing(Entrance(HERE, 0, "ours")) as entrance, ThreadPoolExecutor(1) as pool:
        create_connection((HERE, entrance.port)).close()
        (stranger,) = call(HERE, entrance.port, "theirs", 1)
        (second_first,) = call(HERE, entrance.port, "ours", 0)
        known = pool.submit(call, HERE, entrance.port, "ours", 1)
        with closing(entrance_channel(entrance, 2)) as channel:
            channel.connect()
            for refused in (stranger, second_first):
                assert refused.recv(1) == b""
                refused.close()
            known.result()[0].close()


def test_a_port_in_use_is_an_error() -> None:
    with closing(Entrance(HERE, 0, "ours")) as entrance, pytest.raises(ResourceError, match="cannot listen at port"):
        Entrance(HERE, entrance.port, "ours")
