"""The physics in the loss: patches of a group are placed on a canvas, cut out, illuminated and propagated.

Placing and cutting are products with small matrices (`ptychopinn.interpolation`), which are differentiable,
deterministic, and the same in every framework.
"""

from __future__ import annotations

import math

import numpy as np

from ptychopinn.interpolation import shift_basis
from ptychopinn.training.constants import COVERAGE_EPSILON, PHASE_ITERATIONS
from ptychopinn_tf._tensorflow import tf


def shift_matrices(weights: tf.Tensor, n: int) -> tf.Tensor:
    """Matrices that move patches to whole pixels: (..., 7) `shift_weights` to (..., n, n) float32."""
    return tf.tensordot(weights, tf.constant(shift_basis(n), tf.float32), axes=1)


def one_hot_rows(start: tf.Tensor, rows: int, columns: int) -> tf.Tensor:
    """Matrices that select ``rows`` of ``columns`` entries from ``start`` on; entries outside give 0.

    (...,) int64, which may be negative, to (..., rows, columns) float32.
    """
    row = tf.range(rows, dtype=start.dtype)[:, None]
    column = tf.range(columns, dtype=start.dtype)[None, :]
    return tf.cast(start[..., None, None] + row == column, tf.float32)


def separable_transform(left: tf.Tensor, image: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """``left @ image @ right^T`` for real matrices and a real or complex image; all (..., a, b)."""
    if image.dtype.is_complex:
        real, imag = tf.math.real(image), tf.math.imag(image)
        return tf.complex(separable_transform(left, real, right), separable_transform(left, imag, right))
    return tf.matmul(tf.matmul(left, image), right, transpose_b=True)


def as_complex(real: tf.Tensor) -> tf.Tensor:
    """Real numbers as complex ones; `tf.cast` would warn of the imaginary part that its gradient drops."""
    return tf.complex(real, tf.zeros_like(real))


def polar(modulus: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """Complex numbers of a modulus and an angle in rad."""
    return tf.complex(modulus * tf.cos(angle), modulus * tf.sin(angle))


def unit(values: tf.Tensor) -> tf.Tensor:
    """Complex numbers over their moduli."""
    return values / as_complex(tf.abs(values))


def intensity(field: tf.Tensor) -> tf.Tensor:
    """Squared modulus of a complex field."""
    return tf.math.real(field) ** 2 + tf.math.imag(field) ** 2


def frequencies(n: int) -> tf.Tensor:
    """(n,) float32, DC first, in cycles a sample."""
    return tf.constant(np.fft.fftfreq(n), tf.float32)


def shift_probe(probe: tf.Tensor, fractions: tf.Tensor) -> tf.Tensor:
    """As `ptychopinn.interpolation.shift_probe`, differentiable in the probe.

    (modes, N, N) complex64 and (..., 2) float32 fractions (y, x) to (..., modes, N, N) complex64.
    """
    n = probe.shape[-1]
    angle = -2 * math.pi * fractions[..., None] * frequencies(n)
    off_nyquist = tf.constant(np.arange(n) != n // 2, tf.float32)
    ramp = tf.complex(tf.cos(angle), tf.sin(angle) * off_nyquist)
    spectrum = tf.signal.fft2d(probe)
    return tf.signal.ifft2d(spectrum * (ramp[..., 0, :, None] * ramp[..., 1, None, :])[..., None, :, :])


def group_phases(root_weights: tf.Tensor, placed: tf.Tensor) -> tf.Tensor:
    """Phases that align the patches of each group (`ptychopinn.synchronise` for few patches).

    Square roots of the weights, (g, C, M, M) float32, and patches, (g, C, M, M) complex64, on the canvas, to (g, C)
    complex64 of modulus 1 without gradient; their mean phase is 0.
    """
    size = placed.shape[1]
    u = as_complex(root_weights) * tf.stop_gradient(placed)
    rows = tf.reshape(tf.concat([tf.math.real(u), tf.math.imag(u)], axis=1), (-1, 2 * size, np.prod(u.shape[2:])))
    gram = tf.matmul(rows, rows, transpose_b=True)  # (g, 2C, 2C): all products of real and imaginary parts
    real = gram[:, :size, :size] + gram[:, size:, size:]
    imag = gram[:, size:, :size] - gram[:, :size, size:]
    overlaps = tf.concat([tf.concat([real, -imag], axis=2), tf.concat([imag, real], axis=2)], axis=1)
    v = _unit_pairs(tf.concat([real[:, :, :1], imag[:, :, :1]], axis=1), size)
    for _ in range(PHASE_ITERATIONS):
        v = _unit_pairs(tf.matmul(overlaps, v), size)
    phases = tf.complex(v[:, :size, 0], v[:, size:, 0])
    mean = tf.reduce_mean(phases, axis=1, keepdims=True) + 1e-12
    return phases * tf.math.conj(unit(mean))


def _unit_pairs(v: tf.Tensor, size: int) -> tf.Tensor:
    """(g, 2C, 1), real parts above imaginary parts, to modulus 1."""
    real, imag = v[:, :size] + 1e-12, v[:, size:]
    scale = tf.math.rsqrt(real**2 + imag**2)
    return tf.concat([real * scale, imag * scale], axis=1)


def blur_waves(field: tf.Tensor, sigma_px: float) -> tf.Tensor:
    """Far field of exit waves blurred by a Gaussian: (..., N, N) with DC at [0, 0] to the same."""
    gain = tf.exp(-2 * (math.pi * sigma_px * frequencies(field.shape[-1])) ** 2)
    return field * as_complex(gain[:, None] * gain)


class GroupForward:
    """Patches of groups to expected counts (`ptychopinn.training.objective.GroupPhysics`).

    ``reach`` is the largest distance, in whole pixels, of a member's corner from its anchor's.
    """

    def __init__(self, N: int, patch_size: int, reach: int) -> None:  # noqa: N803
        self.N, self.patch_size, self.reach = N, patch_size, reach
        self.canvas_size = patch_size + 2 * reach

    def canvas(
        self, patches: tf.Tensor, weights: tf.Tensor, offsets: tf.Tensor, shift: tf.Tensor, member: tf.Tensor
    ) -> tf.Tensor:
        """Weighted mean of the patches of each group, minus 1; see `GroupPhysics`."""
        n, size = self.patch_size, self.canvas_size
        pick = one_hot_rows(offsets + self.reach, n, size)
        place = tf.matmul(pick, shift_matrices(shift, n), transpose_a=True)  # (g, C, 2, M, n)
        rows, columns = place[:, :, 0], place[:, :, 1]
        placed = separable_transform(rows, patches, columns)
        # Spelled out: with one member a group, the CPU's matmul corrupts memory where it broadcasts by itself.
        light = tf.broadcast_to(tf.stop_gradient(weights), patches.shape)
        w = tf.maximum(separable_transform(rows, light, columns), 0)
        w = w * member[:, :, None, None]
        total = tf.reduce_sum(w, axis=1)
        v = group_phases(tf.sqrt(w), placed)
        turned = as_complex(w) * placed * tf.math.conj(v)[:, :, None, None]
        mean = tf.reduce_sum(turned, axis=1)
        return (mean - as_complex(total)) / as_complex(total + COVERAGE_EPSILON)

    def __call__(
        self, canvas: tf.Tensor, probe: tf.Tensor, offsets: tf.Tensor, fractions: tf.Tensor, *, sigma_px: float = 0.0
    ) -> tf.Tensor:
        """Expected counts of each member; see `GroupPhysics`."""
        margin = (self.N - self.patch_size) // 2
        cut = one_hot_rows(offsets + self.reach - margin, self.N, self.canvas_size)  # (g, C, 2, N, M)
        windows = separable_transform(cut[:, :, 0], canvas[:, None], cut[:, :, 1])
        field = tf.signal.fft2d(shift_probe(probe / self.N, fractions) * (1 + windows)[:, :, None])
        if sigma_px:
            field = blur_waves(field, sigma_px)
        return tf.reduce_sum(intensity(field), axis=2)

    def single_patterns(self, patches: tf.Tensor, probe: tf.Tensor) -> tf.Tensor:
        """Expected counts of patches on whole pixels; see `GroupPhysics`."""
        margin = (self.N - self.patch_size) // 2
        windows = 1 + tf.pad(patches - 1, ((0, 0), (margin, margin), (margin, margin)))
        field = tf.signal.fft2d(probe * windows[:, None]) / self.N
        return tf.reduce_sum(intensity(field), axis=1)
