"""Thread pools for NumPy work (NumPy releases the GIL in its inner loops)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

from ptychopinn.cores import granted_cores

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_log = logging.getLogger(__name__)
_MAX_THREADS = 8  # beyond it memory bandwidth is the limit


NO_THREADS = "Threads cannot be started, because memory or processes are short; the work goes on with fewer."


def is_thread_missing(error: RuntimeError) -> bool:
    """Whether an exception says that a thread cannot be started."""
    return "can't start new thread" in str(error)


class ThreadPool:
    """A pool of threads for many short calls, by default one per core, at most 8; a context manager.

    ``initializer`` is called first in each thread.
    """

    def __init__(self, count: int | None = None, initializer: Callable[[], None] | None = None) -> None:
        self.count = min(granted_cores(), _MAX_THREADS) if count is None else count
        self._initializer = initializer
        self._pool: ThreadPoolExecutor | None = None  # threads start with the first work for several

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def map(self, work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
        """``[work(item) for item in items]`` in the threads."""
        if min(self.count, len(items)) < 2:
            return [work(item) for item in items]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, initializer=self._initializer)
        return [result() for result in [self._submit(work, item) for item in items]]

    def _submit(self, work: Callable[[ItemT], ResultT], item: ItemT) -> Callable[[], ResultT]:
        """Start a call. If no thread can be started for it, the returned function calls itself."""
        assert self._pool is not None
        try:
            return self._pool.submit(work, item).result
        except RuntimeError as error:
            if not is_thread_missing(error):
                raise
            _log.warning("%s", NO_THREADS)
            return partial(work, item)


class BackgroundThread:
    """A single background thread. As a context manager it waits for its tasks.

    If no thread can be started because memory is short, tasks run in the caller.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def submit(self, work: Callable[[], ResultT]) -> Callable[[], ResultT]:
        """Start a task. The returned function waits for its result, and raises its exceptions."""
        if self._pool is not None:
            try:
                return self._pool.submit(work).result
            except RuntimeError:  # the thread cannot be started, so the submitted task never runs
                self._pool = None
        done: Future[ResultT] = Future()
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)  # raised by the returned function
        return done.result


def spread(work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
    """``[work(item) for item in items]`` in threads; raises what any of them raises."""
    with ThreadPool() as pool:
        return pool.map(work, items)
