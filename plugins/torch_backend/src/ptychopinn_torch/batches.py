"""Batches of the core as tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptychopinn.training import patterns_in
from ptychopinn.typing import AnyArray


def to_tensor(array: AnyArray, device: torch.device | str = "cpu") -> Tensor:
    """Convert an array to a tensor on a device, without a copy if possible."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def upload(array: AnyArray, device: torch.device) -> Tensor:
    """Upload an array to a device asynchronously."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@dataclass(frozen=True)
class TensorBatch:
    """One batch.

    Attributes
    ----------
    tensors:
        The arrays of `ptychopinn.training.EpochSource` by name.
    patterns:
        Number of patterns, with the simulated ones.
    """

    tensors: Mapping[str, Tensor]
    patterns: int

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> TensorBatch:
        """A batch of `EpochSource`, without a copy."""
        return cls({name: to_tensor(array) for name, array in arrays.items()}, patterns_in(arrays))

    def map(self, function: Callable[[Tensor], Tensor]) -> TensorBatch:
        """Apply a function to every tensor."""
        return TensorBatch({name: function(tensor) for name, tensor in self.tensors.items()}, self.patterns)

    @property
    def size(self) -> int:
        """Maximum number of parts: groups, or single patterns if there are no groups."""
        return len(self.tensors["counts" if "counts" in self.tensors else "simulated_counts"])

    def cut(self, parts: int) -> list[Mapping[str, Tensor]]:
        """Split the tensors into parts of nearly the same size."""
        if parts == 1:
            return [self.tensors]
        shares = {name: tensor.tensor_split(parts) for name, tensor in self.tensors.items()}
        return [{name: share[part] for name, share in shares.items()} for part in range(parts)]
