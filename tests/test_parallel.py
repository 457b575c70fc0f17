"""Pieces of work in threads: they serve specs/03-physics.md."""

from __future__ import annotations

import threading

import pytest

from ptychopinn.parallel import BackgroundThread, ThreadPool, spread


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_order_call_after_call(count: int) -> None:
    with ThreadPool(count) as pool:
        for _ in range(3):
            assert pool.map(lambda k: k * k, range(7)) == [k * k for k in range(7)]
        assert pool.map(lambda k: k, []) == []


def test_threads_begin_once_and_end_with_the_crew() -> None:
    begun: list[int] = []
    met = threading.Barrier(2, timeout=10)
    with ThreadPool(2, initializer=lambda: begun.append(threading.get_ident())) as pool:
        for _ in range(3):
            pool.map(lambda _: met.wait(), range(2))  # passes only if both threads are at work
        assert len(set(begun)) == len(begun) == 2
    assert not set(begun) & {thread.ident for thread in threading.enumerate()}


def test_one_item_is_worked_on_by_the_caller() -> None:
    with ThreadPool(4) as pool:
        assert pool.map(lambda _: threading.get_ident(), [0]) == [threading.get_ident()]


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_raised_reaches_the_caller(count: int) -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    with ThreadPool(count) as pool:
        with pytest.raises(ValueError, match="two"):
            pool.map(work, range(4))
        assert pool.map(work, range(2)) == [0, 1]  # and it goes on
    with pytest.raises(ValueError, match="two"):
        spread(work, range(4))


def test_work_aside_goes_on_while_the_caller_does() -> None:
    met = threading.Barrier(2, timeout=10)
    with BackgroundThread() as thread:
        result = thread.submit(lambda: (met.wait(), threading.get_ident())[1])
        met.wait()  # passes only if the work has begun
        assert result() != threading.get_ident()


def test_work_aside_is_done_in_order_and_raises_where_its_result_is_asked_for() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return 1 // number

    with BackgroundThread() as thread:
        results = [thread.submit(lambda number=number: work(number)) for number in (1, 0, 2)]  # type: ignore[misc]
        assert results[2]() == 0
        with pytest.raises(ZeroDivisionError):
            results[1]()
    assert done == [1, 0, 2]


def test_without_a_thread_work_aside_is_done_by_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where memory is short."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done: list[int] = []
    with BackgroundThread() as thread:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        result, failed = thread.submit(lambda: done.append(threading.get_ident())), thread.submit(lambda: 1 // 0)
        monkeypatch.undo()
        thread.submit(lambda: done.append(threading.get_ident()))()
        assert done == [threading.get_ident()] * 2
        result()
        with pytest.raises(ZeroDivisionError):
            failed()


def refuse_start(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_threads_the_caller_works_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[RUN-003] As where memory is short, or the number of processes is limited."""
    monkeypatch.setattr(threading.Thread, "start", refuse_start)
    with ThreadPool(3) as pool:
        assert pool.map(lambda k: (k, threading.get_ident()), range(5)) == [
            (k, threading.get_ident()) for k in range(5)
        ]
    assert "Threads cannot be started" in caplog.text
