"""Batches that are made while the one before is trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(make: Callable[[int], T], count: int, workers: int) -> Generator[T, None, None]:
    """``make(0)``, ``make(1)``, ... in order, made by threads ahead of the caller.

    NumPy lets other threads run during its larger operations, and frameworks do while they compute. What is made must
    not depend on the order in which it is made.

    Parameters
    ----------
    make:
        Makes one; what it raises is raised here, in its turn.
    count:
        How many.
    workers:
        Threads; with 0 the caller's makes each when it is asked for.
    """
    if workers == 0:
        yield from map(make, range(count))
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        ahead: deque[Future[T]] = deque()
        try:
            for number in range(count):
                ahead.append(pool.submit(make, number))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
