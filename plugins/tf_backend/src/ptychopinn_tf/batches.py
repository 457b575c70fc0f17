"""NumPy batches of the core to tensors, all of one size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ptychopinn.typing import AnyArray
from ptychopinn_tf._tensorflow import tf

TensorBatch: TypeAlias = dict[str, Any]  # name to tensor: the arrays of `EpochSource` that there are

_GROUPED = ("counts", "offsets", "fractions", "shift", "member", "truth", "member_share", "group_share")


def pad_batch(array: AnyArray, size: int) -> AnyArray:
    """An array with zeros behind, so that its first axis has at least ``size`` entries."""
    missing = size - len(array)
    return array if missing <= 0 else np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])


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
    arrays = {name: pad_batch(array, groups) if name in _GROUPED else array for name, array in arrays.items()}
    shards = {name: np.split(_even(name, array, parts), parts) for name, array in arrays.items()}
    return [{name: tf.constant(shard[part]) for name, shard in shards.items()} for part in range(parts)]


def _even(name: str, array: AnyArray, parts: int) -> AnyArray:
    """An array with as much behind as it needs to be split evenly: zeros, or the first probe again, which is lit."""
    size = -(-len(array) // parts) * parts
    if name == "simulated_probe":
        return np.concatenate([array, np.repeat(array[:1], size - len(array), axis=0)])
    return pad_batch(array, size)
