"""What the loss needs of TensorFlow (`ptychopinn.training.operations.Operations`)."""

from __future__ import annotations

from ptychopinn.training.operations import Axes
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.forward import as_complex

__all__ = [
    "angle",
    "as_complex",
    "as_real",
    "conj",
    "log",
    "max",
    "mean",
    "sqrt",
    "stack",
    "stop_gradient",
    "sum",
    "where",
]

sqrt, log, conj, stack, stop_gradient = tf.sqrt, tf.math.log, tf.math.conj, tf.stack, tf.stop_gradient
where = tf.where


def sum(values: tf.Tensor, axes: Axes | None = None, *, keepdims: bool = False) -> tf.Tensor:
    """Their sum over some axes, or over all."""
    return tf.reduce_sum(values, axis=axes, keepdims=keepdims)


def mean(values: tf.Tensor, axes: Axes) -> tf.Tensor:
    """Their mean over some axes."""
    return tf.reduce_mean(values, axis=axes)


def max(values: tf.Tensor, axes: Axes, *, keepdims: bool = False) -> tf.Tensor:
    """Their largest over some axes."""
    return tf.reduce_max(values, axis=axes, keepdims=keepdims)


def angle(values: tf.Tensor) -> tf.Tensor:
    """Angles in rad of (..., 2) real and imaginary parts: (...,)."""
    return tf.math.atan2(values[..., 1], values[..., 0])


def as_real(values: tf.Tensor) -> tf.Tensor:
    """Complex (...,) to (..., 2), real and imaginary parts."""
    return tf.stack([tf.math.real(values), tf.math.imag(values)], axis=-1)
