"""Parts of a batch side by side, each on its share of the cores.

PyTorch spreads one operation over the cores; those of our networks are so small that half of the time goes into that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
import torch

from ptychopinn.parallel import ThreadPool
from ptychopinn.typing import ComplexArray, FloatArray

_log = logging.getLogger("ptychopinn.torch")
_MAX_PARTS = 4  # parts at a time
_MIN_PATTERNS = 8  # patterns that are worth a part of their own
_START_S = 30.0  # in which the threads must have started: where memory is short, some do not
_MAX_PATTERNS = 64  # in a part, and
_MAX_PIXELS = 1 << 20  # pixels of its patterns: what is computed of more does not fit a core's cache


class ParallelPredictor:
    """Threads that compute parts of a batch; on a GPU the batch is computed whole.

    Parameters
    ----------
    device:
        That computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._in_parts = device.type == "cpu"
        cores = torch.get_num_threads() if self._in_parts else 1
        count = next(k for k in range(min(cores, _MAX_PARTS), 0, -1) if cores % k == 0)  # no core is left over

        def begin() -> None:
            torch.get_num_threads()  # a thread takes over the number of all threads when it first asks, and never again
            torch.set_num_threads(cores // count)

        self._pool = ThreadPool(count, begin)
        if count > 1:
            all_there = threading.Barrier(count, timeout=_START_S)
            try:
                self._pool.map(lambda _: all_there.wait(), range(count))
            except (RuntimeError, threading.BrokenBarrierError) as error:
                _log.warning("No threads for parts of a batch (%s); it is computed whole.", error)
                all_there.abort()
                self._in_parts = False
            finally:
                torch.set_num_threads(cores)  # the last to set it sets it for all threads to come, also those of others

    def __call__(self, compute: Callable[[FloatArray], ComplexArray], counts: FloatArray) -> ComplexArray:
        """What a function makes of (b, C, N, N) patterns, one after another or side by side."""
        if not self._in_parts:
            return compute(counts)
        side_by_side = min(self._pool.count, max(len(counts) // _MIN_PATTERNS, 1))
        largest = max(min(_MAX_PATTERNS, _MAX_PIXELS * len(counts) // max(counts.size, 1)), 1)  # patterns
        parts = np.array_split(counts, max(side_by_side, -(-len(counts) // largest)))
        return np.concatenate(self._pool.map(compute, parts))
