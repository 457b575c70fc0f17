"""Loss terms, each a mean that does not move with the dose."""

from __future__ import annotations

from ptychopinn.forward import COUNT_FLOOR
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.forward import as_complex, unit


def poisson_deviance(expected: tf.Tensor, counts: tf.Tensor, good: tf.Tensor, mean_counts: tf.Tensor) -> tf.Tensor:
    """Poisson deviance of patterns over the mean counts of a pattern.

    Parameters
    ----------
    expected, counts:
        (..., N, N) float32, counts.
    good:
        broadcastable to them: 1 where the detector measured, else 0.
    mean_counts:
        Mean photons a pattern.

    Returns
    -------
    (...,) float32, dimensionless, 0 for a perfect prediction.
    """
    e, n = expected + COUNT_FLOOR, counts + COUNT_FLOOR
    return tf.reduce_sum((e - n - n * tf.math.log(e / n)) * good, axis=(-2, -1)) / mean_counts


def amplitude_error(expected: tf.Tensor, counts: tf.Tensor, good: tf.Tensor, mean_counts: tf.Tensor) -> tf.Tensor:
    """Mean absolute error of diffraction amplitudes over their root mean square; shapes as in `poisson_deviance`."""
    pixels = expected.shape[-1] * expected.shape[-2]
    error = tf.abs(tf.sqrt(expected + COUNT_FLOOR) - tf.sqrt(counts + COUNT_FLOOR)) * good
    return tf.reduce_sum(error, axis=(-2, -1)) / tf.sqrt(mean_counts * pixels)


def total_variation(canvas: tf.Tensor) -> tf.Tensor:
    """Mean absolute difference of neighbouring pixels, (..., M, M) complex to (...,)."""
    dy, dx = canvas[..., 1:, :] - canvas[..., :-1, :], canvas[..., :, 1:] - canvas[..., :, :-1]
    return tf.reduce_mean(tf.abs(dy), axis=(-2, -1)) + tf.reduce_mean(tf.abs(dx), axis=(-2, -1))


def patch_error(patches: tf.Tensor, truth: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted mean absolute error against known patches, free of each patch's phase.

    The truth is turned by the phase of the weighted product with the prediction; no gradient goes through that phase.

    Parameters
    ----------
    patches, truth:
        (..., n, n) complex64.
    weights:
        (n, n) float32, probe intensity.

    Returns
    -------
    (...,) float32.
    """
    weighted = tf.stop_gradient(patches) * tf.math.conj(truth) * as_complex(weights)
    product = tf.reduce_sum(weighted, axis=(-2, -1), keepdims=True) + 1e-12
    turned = truth * unit(product)
    return tf.reduce_sum(tf.abs(patches - turned) * weights, axis=(-2, -1)) / tf.reduce_sum(weights)
