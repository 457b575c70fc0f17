"""Predict parts of a batch in parallel threads, each with its share of the cores.

PyTorch runs each operation on all cores. The operations of our networks are so small that this costs half of the time.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch

from ptychopinn.cores import granted_cores
from ptychopinn.parallel import ThreadPool
from ptychopinn.typing import ComplexArray, FloatArray

_log = logging.getLogger("ptychopinn.torch")
_MAX_PARTS = 4  # parts in parallel
_MIN_PATTERNS = 8  # minimum number of patterns in a part
_START_S = 10.0  # time limit for starting the threads, which can fail if memory is short
_MAX_PATTERNS = 64  # maximum number of patterns in a part, and
_MAX_PIXELS = 1 << 20  # of their pixels; the data of more exceed a core's cache


class _Limits:
    """Numbers of threads that blocks of several threads compute with at the same time.

    PyTorch has a number for each thread, and the last one that was set anywhere for threads that begin to compute. So
    what such a thread finds while another one is limited is not what the process had.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depths: Counter[int] = Counter()  # blocks that each thread is in
        self._unlimited = 0  # before any block

    def available(self) -> int:
        """As `available_threads`."""
        with self._lock:
            return self._available()

    def _available(self) -> int:
        is_foreign = self._depths.total() > 0 and threading.get_ident() not in self._depths
        return self._unlimited if is_foreign else torch.get_num_threads()

    @contextmanager
    def block(self, count: int) -> Iterator[None]:
        """As `limited_threads`."""
        thread = threading.get_ident()
        with self._lock:
            before = self._available()
            if not self._depths:
                self._unlimited = before
            self._depths[thread] += 1
            torch.set_num_threads(count)
        try:
            yield
        finally:
            with self._lock:
                self._depths -= Counter([thread])  # which drops what is 0
                torch.set_num_threads(before)


_LIMITS = _Limits()  # one, as PyTorch has one setting for the process


def available_threads() -> int:
    """How many threads this thread may compute with, whatever other threads have limited themselves to."""
    return _LIMITS.available()


def limited_threads(count: int) -> AbstractContextManager[None]:
    """Compute with so many threads in a block of this thread; put back what was."""
    return _LIMITS.block(count)


class ParallelPredictor:
    """Computes parts of a batch in threads; on a GPU, the whole batch.

    Parameters
    ----------
    threads:
        Number of threads; None: as many as PyTorch would use and are granted.
    """

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        self._in_parts = device.type == "cpu"
        before = available_threads()
        self._cores = cores = (threads or min(before, granted_cores())) if self._in_parts else 1
        count = next(k for k in range(min(cores, _MAX_PARTS), 0, -1) if cores % k == 0)  # uses all cores

        def initialise() -> None:
            torch.get_num_threads()  # must be called before set_num_threads() takes effect in this thread
            torch.set_num_threads(cores // count)

        self._pool = ThreadPool(count, initialise)
        if count > 1:
            all_there = threading.Barrier(count, timeout=_START_S)
            try:
                with limited_threads(before):  # puts back what `initialise` sets for all later threads
                    self._pool.map(lambda _: all_there.wait(), range(count))
            except (RuntimeError, threading.BrokenBarrierError) as error:
                _log.warning("Threads cannot be started (%s); batches are computed whole.", error)
                all_there.abort()
                self._in_parts = False

    def __call__(self, compute: Callable[[FloatArray], ComplexArray], counts: FloatArray) -> ComplexArray:
        """Apply a function to (b, C, N, N) patterns, in parts."""
        if not self._in_parts:
            return compute(counts)
        side_by_side = min(self._pool.count, max(len(counts) // _MIN_PATTERNS, 1))
        largest = max(min(_MAX_PATTERNS, _MAX_PIXELS * len(counts) // max(counts.size, 1)), 1)  # patterns
        parts = np.array_split(counts, max(side_by_side, -(-len(counts) // largest)))
        with limited_threads(self._cores):  # of this thread, which computes alone if there are no others
            return np.concatenate(self._pool.map(compute, parts))
