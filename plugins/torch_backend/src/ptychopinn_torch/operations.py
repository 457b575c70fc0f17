"""What the loss needs of PyTorch (`ptychopinn.training.operations.Operations`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ptychopinn.training.operations import Axes

sqrt, log, stack, where = torch.sqrt, torch.log, torch.stack, torch.where
conj, as_real = torch.conj, torch.view_as_real


def sum(values: Tensor, axes: Axes | None = None, *, keepdims: bool = False) -> Tensor:
    """Their sum over some axes, or over all."""
    return torch.sum(values, dim=axes, keepdim=keepdims)


def mean(values: Tensor, axes: Axes) -> Tensor:
    """Their mean over some axes."""
    return torch.mean(values, dim=axes)


def max(values: Tensor, axes: Axes, *, keepdims: bool = False) -> Tensor:
    """Their largest over some axes."""
    return torch.amax(values, dim=axes, keepdim=keepdims)


def angle(values: Tensor) -> Tensor:
    """Angles in rad of (..., 2) real and imaginary parts: (...,)."""
    return torch.atan2(values[..., 1], values[..., 0])


def as_complex(values: Tensor) -> Tensor:
    """The same: PyTorch multiplies and divides complex tensors by real ones, without a copy."""
    return values


def stop_gradient(values: Tensor) -> Tensor:
    """The same numbers, through which no gradient flows; the tensor itself where none does."""
    return values.detach() if values.requires_grad else values
