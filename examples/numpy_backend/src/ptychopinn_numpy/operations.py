"""What the loss needs of NumPy (`ptychopinn.training.operations.Operations`)."""

from __future__ import annotations

import numpy as np

from ptychopinn.training.operations import Axes
from ptychopinn.typing import AnyArray

sqrt, log, conj, stack, where = np.sqrt, np.log, np.conj, np.stack, np.where


def sum(values: AnyArray, axes: Axes | None = None, *, keepdims: bool = False) -> AnyArray:
    """Their sum over some axes, or over all."""
    return np.asarray(np.sum(values, axis=axes, keepdims=keepdims))


def mean(values: AnyArray, axes: Axes) -> AnyArray:
    """Their mean over some axes."""
    return np.asarray(np.mean(values, axis=axes))


def max(values: AnyArray, axes: Axes, *, keepdims: bool = False) -> AnyArray:
    """Their largest over some axes."""
    return np.asarray(np.max(values, axis=axes, keepdims=keepdims))


def angle(values: AnyArray) -> AnyArray:
    """Angles in rad of (..., 2) real and imaginary parts: (...,)."""
    return np.arctan2(values[..., 1], values[..., 0])


def as_real(values: AnyArray) -> AnyArray:
    """Complex (...,) to (..., 2), real and imaginary parts."""
    return np.stack([values.real, values.imag], axis=-1)


def as_complex(values: AnyArray) -> AnyArray:
    """The same: NumPy multiplies complex arrays by real ones."""
    return values


def stop_gradient(values: AnyArray) -> AnyArray:
    """The same: NumPy knows no gradients."""
    return values
