"""Prepare batches in threads while the previous batch is trained on."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ptychopinn.parallel import NO_THREADS, is_thread_missing

T = TypeVar("T")
_log = logging.getLogger(__name__)


def prefetch(make: Callable[[int], T], count: int, workers: int) -> Generator[T, None, None]:
    """Yield ``make(0)``, ``make(1)``, ... in order, computed ahead by threads.

    ``make`` may be called in any order. Its exceptions are raised here, in their turn. With 0 ``workers`` the caller's
    thread makes each item when it is needed.
    """
    if workers == 0:
        yield from map(make, range(count))
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        ahead: deque[Future[T]] = deque()
        try:
            for number in range(count):
                ahead.append(_submitted(pool, make, number))
                if len(ahead) > workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _submitted(pool: ThreadPoolExecutor, make: Callable[[int], T], number: int) -> Future[T]:
    """Start ``make(number)``; if no thread can be started for it, it is computed here."""
    try:
        return pool.submit(make, number)
    except RuntimeError as error:
        if not is_thread_missing(error):
            raise
        _log.warning("%s", NO_THREADS)
        made: Future[T] = Future()
        try:
            made.set_result(make(number))
        except Exception as failure:
            made.set_exception(failure)  # raised in its turn
        return made
