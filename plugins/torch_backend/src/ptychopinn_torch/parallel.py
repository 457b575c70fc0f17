"""Predict parts of a batch in parallel threads, each with its share of the cores.

PyTorch runs each operation on all cores. The operations of our networks are so small that this costs half of the time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Compute with so many threads in a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ParallelPredictor:
    """Computes parts of a batch in threads; on a GPU, the whole batch.

    Parameters
    ----------
    device:
        The device.
    threads:
        Number of threads; None: as many as PyTorch would use and are granted.
    """

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        self._in_parts = device.type == "cpu"
        before = torch.get_num_threads()
        self._cores = cores = (threads or min(before, granted_cores())) if self._in_parts else 1
        count = next(k for k in range(min(cores, _MAX_PARTS), 0, -1) if cores % k == 0)  # uses all cores

        def initialise() -> None:
            torch.get_num_threads()  # must be called before set_num_threads() takes effect in this thread
            torch.set_num_threads(cores // count)

        self._pool = ThreadPool(count, initialise)
        if count > 1:
            all_there = threading.Barrier(count, timeout=_START_S)
            try:
                self._pool.map(lambda _: all_there.wait(), range(count))
            except (RuntimeError, threading.BrokenBarrierError) as error:
                _log.warning("Threads cannot be started (%s); batches are computed whole.", error)
                all_there.abort()
                self._in_parts = False
            finally:
                torch.set_num_threads(before)  # the last call also sets the number for all later threads

    def __call__(self, compute: Callable[[FloatArray], ComplexArray], counts: FloatArray) -> ComplexArray:
        """Apply a function to (b, C, N, N) patterns, in parts."""
        if not self._in_parts:
            return compute(counts)
        side_by_side = min(self._pool.count, max(len(counts) // _MIN_PATTERNS, 1))
        largest = max(min(_MAX_PATTERNS, _MAX_PIXELS * len(counts) // max(counts.size, 1)), 1)  # patterns
        parts = np.array_split(counts, max(side_by_side, -(-len(counts) // largest)))
        with limited_threads(self._cores):  # of this thread, which computes alone if there are no others
            return np.concatenate(self._pool.map(compute, parts))
