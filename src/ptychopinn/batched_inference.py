"""Predict patches from patterns in batches that fit into memory, for every backend."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from functools import partial

import numpy as np

from ptychopinn.arrays import Array
from ptychopinn.data.batches import inference_groups
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import Cancelled, ResourceError
from ptychopinn.failures import IsOutOfMemory, retry_smaller
from ptychopinn.monitor import Monitor
from ptychopinn.parallel import BackgroundThread
from ptychopinn.reconstructor import PatchBatch
from ptychopinn.typing import IntArray

_log = logging.getLogger(__name__)


def stream_patches(
    patterns: Patterns,
    batch_size: int,
    predict: Callable[[Array], Array],
    *,
    patterns_per_patch: int,
    out_of_memory: IsOutOfMemory,
    monitor: Monitor,
) -> Generator[PatchBatch, None, None]:
    """Predict all patterns of a scan in order.

    Parameters
    ----------
    batch_size:
        Patterns per batch; halved, with a warning, when a batch does not fit into memory.
    predict:
        (b, C, N, N) float32 counts with DC at [0, 0] to (b, n, n) complex64 patches of the first pattern of each; both
        of the patterns' library.
    patterns_per_patch:
        C. A pattern is followed by its C - 1 nearest neighbours, or zeros if its scan has fewer.
    out_of_memory:
        Whether an exception of ``predict`` means that memory ran out.
    monitor:
        Checked before every batch.

    Raises
    ------
    Cancelled
        If the monitor is cancelled.
    ResourceError
        If not even one pattern fits.
    """
    data = patterns.data
    groups = inference_groups(data, patterns_per_patch)
    size = batch_size
    monitor.report("predict", 0, len(data))
    with BackgroundThread() as thread:

        def submit_read(start: int) -> tuple[IntArray, Callable[[], Array]]:
            indices = np.arange(start, min(start + size, len(data)))
            return indices, thread.submit(partial(patterns.groups, groups[indices]))

        current = submit_read(0)

        def shrink(error: Exception) -> None:
            nonlocal size, current
            first, count = int(current[0][0]), len(current[0])
            if count == 1:
                raise ResourceError(
                    "Memory does not suffice to predict even one pattern.", "Free memory or use another device."
                ) from error
            size = count // 2
            _log.warning("A batch of %d patterns does not fit into memory; continuing with %d.", count, size)
            current = submit_read(first)

        def predict_current() -> tuple[tuple[IntArray, Callable[[], Array]], Array]:
            indices, counts = current
            following = submit_read(int(indices[-1]) + 1)  # while these are predicted
            return following, predict(counts())

        while len(current[0]):
            if monitor.cancelled:
                raise Cancelled(f"Inference was cancelled after {current[0][0]} of {len(data)} patterns.")
            following, patches = retry_smaller(predict_current, shrink, out_of_memory)
            indices = current[0]
            yield PatchBatch(indices, patches)
            monitor.report("predict", int(indices[-1]) + 1, len(data))
            current = following
