"""Independent pieces of NumPy work on the cores there are: its loops let other threads run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_MAX_THREADS = 8  # threads; beyond it memory, not arithmetic, is what there is too little of


class ThreadPool:
    """Threads that stay for the next call, where calls are many and short; a context manager.

    Parameters
    ----------
    count:
        Of threads; None is one for each core, 8 at most.
    begin:
        What each of them does first.
    """

    def __init__(self, count: int | None = None, begin: Callable[[], None] | None = None) -> None:
        self.count = _threads() if count is None else count
        self._begin = begin
        self._pool: ThreadPoolExecutor | None = None  # its threads start with the first work there is for several

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def map(self, work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
        """As the function `spread`."""
        if min(self.count, len(items)) < 2:
            return [work(item) for item in items]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, initializer=self._begin)
        return list(self._pool.map(work, items))


class BackgroundThread:
    """A thread beside the caller's that does one piece of work after another; a context manager that waits for them.

    Where no thread can be started, for memory is short, the caller does the work itself.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def submit(self, work: Callable[[], ResultT]) -> Callable[[], ResultT]:
        """Begin some work; what is returned waits for its result, and raises what it raised."""
        if self._pool is not None:
            try:
                return self._pool.submit(work).result
            except RuntimeError:  # the thread cannot be started; what was submitted waits for it in vain
                self._pool = None
        done: Future[ResultT] = Future()
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)  # for who asks for the result
        return done.result


def spread(work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
    """``[work(item) for item in items]`` in threads; what one of them raises is raised."""
    with ThreadPool() as pool:
        return pool.map(work, items)


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_THREADS)
