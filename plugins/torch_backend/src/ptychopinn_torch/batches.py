"""NumPy arrays of the core as tensors, and batches cut into parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ptychopinn.training.sources import Batch
from ptychopinn.typing import AnyArray

_WEIGHTS = ("member", "member_share", "group_share", "simulated_share")


def to_tensor(array: AnyArray, device: torch.device | str = "cpu") -> Tensor:
    """Convert an array to a tensor on a device, without a copy if possible."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def upload(array: AnyArray, device: torch.device) -> Tensor:
    """Upload an array to a device asynchronously."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def cut(tensors: Mapping[str, Tensor], parts: int) -> list[Mapping[str, Tensor]]:
    """The tensors of a batch in parts of nearly the same size."""
    if parts == 1:
        return [tensors]
    shares = {name: tensor.tensor_split(parts) for name, tensor in tensors.items()}
    return [{name: share[part] for name, share in shares.items()} for part in range(parts)]


def share_of(batch: Batch, rank: int, count: int) -> Batch:
    """The part of a batch that one of ``count`` processes computes.

    Where there are too few groups or patterns for it, it gets the first one, without a share in the loss.
    """
    if count == 1:
        return batch
    share = dict(cut(batch.tensors, count)[rank])
    for name, tensor in share.items():
        if len(tensor) == 0:
            first = batch.tensors[name][:1]
            share[name] = torch.zeros_like(first) if name in _WEIGHTS else first
    return Batch(share, batch.patterns)
