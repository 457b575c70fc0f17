"""Convert batches of the core to tensors of equal size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ptychopinn.typing import AnyArray
from ptychopinn_tf._tensorflow import tf

TensorBatch: TypeAlias = dict[str, Any]  # the arrays of `EpochSource` by name

_GROUPED = ("counts", "offsets", "fractions", "shift", "member", "truth", "member_share", "group_share")


def pad_batch(array: AnyArray, size: int) -> AnyArray:
    """Pad the first axis of an array with zeros to at least ``size`` entries."""
    missing = size - len(array)
    return array if missing <= 0 else np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])


def tensor_batches(arrays: Mapping[str, AnyArray], groups: int, parts: int) -> list[TensorBatch]:
    """Convert one batch to tensors, split over devices or into parts.

    Parameters
    ----------
    arrays:
        A batch of `EpochSource`.
    groups:
        Groups in a full batch; a smaller batch is padded, to avoid another compilation.
    parts:
        Number of parts of equal size.

    Returns
    -------
    A batch per part. Padding has no share in the loss.
    """
    arrays = {name: pad_batch(array, groups) if name in _GROUPED else array for name, array in arrays.items()}
    shards = {name: np.split(_even(name, array, parts), parts) for name, array in arrays.items()}
    return [{name: tf.constant(shard[part]) for name, shard in shards.items()} for part in range(parts)]


def _even(name: str, array: AnyArray, parts: int) -> AnyArray:
    """Pad an array so that it can be split evenly: with zeros, or the first probe, which must not be zero."""
    size = -(-len(array) // parts) * parts
    if name == "simulated_probe":
        return np.concatenate([array, np.repeat(array[:1], size - len(array), axis=0)])
    return pad_batch(array, size)
