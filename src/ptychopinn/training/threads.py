"""The number of threads of a training: chosen at its start, and the same when it is resumed."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from ptychopinn.bundle import Bundle
from ptychopinn.cores import CoreLoad
from ptychopinn.typing import AnyArray

_log = logging.getLogger(__name__)
_THREADS = "threads"


def choose_threads(asked: int | None, largest: int, load: CoreLoad, checkpoint: Bundle | None) -> int:
    """The number of threads of a training.

    Parameters
    ----------
    asked:
        The option ``threads``.
    largest:
        Number that the framework would use; 1 if the number does not matter.
    load:
        Load of the cores, measured while the training is prepared.
    checkpoint:
        What the training resumes from.
    """
    if asked is not None:
        return asked
    before = None if checkpoint is None else checkpoint.weights.get(_THREADS)
    if before is not None and before.shape == (1,):
        return max(int(before[0]), 1)
    count = load.choose_threads(largest)
    if count < largest:
        _log.info("Computing with %d of %d threads: other programs use the other cores.", count, largest)
    return count


def thread_tensors(count: int) -> Mapping[str, AnyArray]:
    """The number of threads, as checkpoints store it."""
    return {_THREADS: np.array([count], np.int64)}
