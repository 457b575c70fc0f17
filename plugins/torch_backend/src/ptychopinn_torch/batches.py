"""NumPy arrays of the core as tensors, and batches cut into parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ptychopinn.typing import AnyArray


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
