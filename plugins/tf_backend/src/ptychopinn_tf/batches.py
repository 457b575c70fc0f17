"""NumPy batches of the core to tensors, all of one size, and the threads that prepare them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Mapping
from typing import Any, TypeAlias

import numpy as np

from ptychopinn.training import EpochSource
from ptychopinn.typing import AnyArray
from ptychopinn_tf._tensorflow import tf

TensorBatch: TypeAlias = dict[str, Any]  # name to tensor: the arrays of `EpochSource` that there are

_GROUPED = ("counts", "offsets", "fractions", "shift", "member", "truth", "member_share", "group_share")
_AHEAD = 2  # batches that a thread may be ahead


def fill_up(array: AnyArray, size: int) -> AnyArray:
    """An array with zeros behind, so that its first axis has at least ``size`` entries."""
    missing = size - len(array)
    return array if missing <= 0 else np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])


def patterns_in(arrays: Mapping[str, AnyArray]) -> int:
    """Patterns in a batch of `EpochSource`, simulated ones counted."""
    measured = int(arrays["member"].sum()) if "member" in arrays else 0
    return measured + len(arrays.get("simulated_counts", ()))


def tensor_batches(arrays: Mapping[str, AnyArray], groups: int, parts: int) -> list[TensorBatch]:
    """One batch as tensors, split over devices, or into parts for one after another.

    Parameters
    ----------
    arrays:
        A batch of `EpochSource`.
    groups:
        Groups in a full batch; a smaller one is filled up, so that nothing is compiled anew for it.
    parts:
        To split into; all are of one size.

    Returns
    -------
    A batch for each part. What fills it up has no share in the loss.
    """
    arrays = {name: fill_up(array, groups) if name in _GROUPED else array for name, array in arrays.items()}
    shared = {name: tf.constant(arrays.pop(name)) for name in ("simulated_probe",) if name in arrays}
    shards = [{name: _shard(array, part, parts) for name, array in arrays.items()} for part in range(parts)]
    return [{name: tf.constant(array) for name, array in shard.items()} | shared for shard in shards]


def _shard(array: AnyArray, part: int, parts: int) -> AnyArray:
    size = -(-len(array) // parts)
    return fill_up(array[part * size : (part + 1) * size], size)


def prepared(source: EpochSource, epoch: int, workers: int) -> Generator[dict[str, AnyArray], None, None]:
    """The batches of an epoch in order, prepared by threads while the device computes; 0 prepares here.

    NumPy lets other threads run during its larger operations, and TensorFlow does while it computes.
    """
    if workers == 0:
        yield from source(epoch)
        return
    ended = threading.Event()
    queues: list[queue.Queue[dict[str, AnyArray] | BaseException]] = [queue.Queue(_AHEAD) for _ in range(workers)]

    def put(worker: int, item: dict[str, AnyArray] | BaseException) -> bool:
        while not ended.is_set():
            try:
                queues[worker].put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work(worker: int) -> None:
        try:
            for arrays in source(epoch, worker, workers):
                if not put(worker, arrays):
                    return
        except BaseException as error:  # handed to the training, which raises it
            put(worker, error)

    threads = [threading.Thread(target=work, args=(k,), name=f"batches-{k}", daemon=True) for k in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for step in range(len(source)):
            item = queues[step % workers].get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        for thread in threads:
            thread.join()
