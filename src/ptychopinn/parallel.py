"""Independent pieces of NumPy work on the cores there are: its loops let other threads run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_MOST = 8  # threads; beyond it memory, not arithmetic, is what there is too little of


class Crew:
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

    def spread(self, work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
        """As the function `spread`."""
        if min(self.count, len(items)) < 2:
            return [work(item) for item in items]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, initializer=self._begin)
        return list(self._pool.map(work, items))


def spread(work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
    """``[work(item) for item in items]`` in threads; what one of them raises is raised."""
    with Crew() as crew:
        return crew.spread(work, items)


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST)
