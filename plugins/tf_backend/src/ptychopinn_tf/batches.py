"""NumPy batches of the core as tensors, all of one size, and cut into parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ptychopinn.training.sources import Batch
from ptychopinn.typing import AnyArray
from ptychopinn_tf._tensorflow import tf

Tensors: TypeAlias = Mapping[str, Any]  # name to tensor: the arrays of `EpochSource` that there are

_GROUPED = ("counts", "offsets", "fractions", "shift", "member", "truth", "member_share", "group_share")


def pad_batch(array: AnyArray, size: int) -> AnyArray:
    """Pad the first axis of an array with zeros to at least ``size`` entries."""
    missing = size - len(array)
    return array if missing <= 0 else np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])


def to_tensors(arrays: Mapping[str, AnyArray], groups: int) -> dict[str, tf.Tensor]:
    """One batch of `EpochSource` as tensors.

    A batch with fewer than ``groups`` groups is filled up, so that nothing is compiled anew for it. What fills it up
    has no share in the loss.
    """
    return {name: tf.constant(pad_batch(a, groups) if name in _GROUPED else a) for name, a in arrays.items()}


def cut(tensors: Tensors, parts: int) -> list[Tensors]:
    """The tensors of a batch in parts of one size."""
    if parts == 1:
        return [tensors]
    shares = {name: tf.split(_pad_to_multiple(name, tensor, parts), parts) for name, tensor in tensors.items()}
    return [{name: share[part] for name, share in shares.items()} for part in range(parts)]


def share_of(batch: Batch, rank: int, count: int) -> Batch:
    """The part of a batch that one of ``count`` processes computes; all parts have one size."""
    return batch if count == 1 else Batch(cut(batch.tensors, count)[rank], batch.patterns)


def _pad_to_multiple(name: str, tensor: tf.Tensor, parts: int) -> tf.Tensor:
    """A tensor with as much behind as it needs to be split evenly: zeros, or the first probe again, which has light."""
    size = int(tensor.shape[0])
    missing = -size % parts
    if not missing:
        return tensor
    if name == "simulated_probe":
        return tf.concat([tensor, tf.repeat(tensor[:1], missing, axis=0)], axis=0)
    return tf.pad(tensor, [[0, missing], *[[0, 0]] * (len(tensor.shape) - 1)])
