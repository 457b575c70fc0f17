"""The fast architecture: an unrolled solver whose every step is learned.

One pattern alone goes in. The network holds an object patch, starting from 1 + 0j; a few times it sends the patch
through the physics under the known probe, compares with the measured amplitudes, projects the difference back to the
patch (the direction in which ePIE would step), and corrects the patch by convolutions that see this difference.
Arithmetic is spent on a 16 x 16 grid whatever N is. Sources: learned primal-dual (Adler & Oktem, IEEE TMI 37, 2018)
for the unrolling; the regularised projection of rPIE (Maiden et al., Optica 4, 736, 2017) for the direction.

Features are (b, GRID, GRID, channels) here, and kernels (y, x, in, out); `ptychopinn_tf.model` turns kernels into the
archive's layout. The order of the channels is that of the archive.
"""

from __future__ import annotations

import math

import numpy as np

from ptychopinn.config.model import AmplitudeActivation, ModelConfig
from ptychopinn.training.constants import AMPLITUDE_LIMIT, GRID, MODULUS_FLOOR, PROBE_REGULARISATION, WIDTH
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.forward import as_complex, intensity, polar
from ptychopinn_tf.variables import Module


def amplitude(activation: AmplitudeActivation, x: tf.Tensor) -> tf.Tensor:
    """Map any real tensor to amplitudes of the same shape; 0 gives 1."""
    if activation is AmplitudeActivation.BOUNDED:
        # limit * sigmoid(x + c) with sigmoid(c) = 1 / limit
        return AMPLITUDE_LIMIT * tf.sigmoid(x - math.log(AMPLITUDE_LIMIT - 1.0))
    if activation is AmplitudeActivation.SOFTPLUS:
        return tf.math.softplus(x + math.log(math.expm1(1.0)))
    return tf.exp(x)


def gelu(x: tf.Tensor) -> tf.Tensor:
    """The exact Gaussian error linear unit."""
    return tf.nn.gelu(x, approximate=False)


def pixel_unshuffle(x: tf.Tensor, block: int) -> tf.Tensor:
    """(b, channels, H, W) to (b, H / block, W / block, channels * block^2): a block's pixels become channels."""
    _, channels, height, width = x.shape
    x = tf.reshape(x, (-1, channels, height // block, block, width // block, block))
    x = tf.transpose(x, (0, 2, 4, 1, 3, 5))
    return tf.reshape(x, (-1, height // block, width // block, channels * block**2))


def pixel_shuffle(x: tf.Tensor, block: int) -> tf.Tensor:
    """The inverse of `pixel_unshuffle`."""
    _, height, width, channels = x.shape
    x = tf.reshape(x, (-1, height, width, channels // block**2, block, block))
    x = tf.transpose(x, (0, 3, 1, 4, 2, 5))
    return tf.reshape(x, (-1, channels // block**2, height * block, width * block))


class Convolution(Module):
    """A convolution that keeps the size.

    Parameters
    ----------
    rng:
        Draws the weights.
    inputs, outputs:
        Channels.
    size:
        Width of the kernel, odd.
    std:
        Deviation of the weights, biases then 0; None draws both evenly within ``1 / sqrt(fan in)``.
    """

    def __init__(
        self, rng: np.random.Generator, inputs: int, outputs: int, size: int, *, std: float | None = None
    ) -> None:
        shape, bound = (size, size, inputs, outputs), 1 / math.sqrt(inputs * size**2)
        weight = rng.uniform(-bound, bound, shape) if std is None else std * rng.standard_normal(shape)
        self.weight = tf.Variable(weight, dtype=tf.float32, name="weight")
        bias = rng.uniform(-bound, bound, outputs) if std is None else np.zeros(outputs)
        self.bias = tf.Variable(bias, dtype=tf.float32, name="bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """(b, y, x, inputs) to (b, y, x, outputs), in the arithmetic of ``x``."""
        y = tf.nn.conv2d(x, tf.cast(self.weight, x.dtype), strides=1, padding="SAME")
        return tf.nn.bias_add(y, tf.cast(self.bias, x.dtype))


class ResidualBlock(Module):
    """Two 3 x 3 convolutions beside the identity."""

    def __init__(self, rng: np.random.Generator, width: int) -> None:
        self.conv1 = Convolution(rng, width, width, 3)
        self.conv2 = Convolution(rng, width, width, 3, std=0.0)

    def __call__(self, h: tf.Tensor) -> tf.Tensor:
        """(b, GRID, GRID, width) to the same."""
        return h + self.conv2(gelu(self.conv1(gelu(h))))


class MixingBlock(Module):
    """Lets every place of the grid speak to every other, one small matrix shared by all channels of a head."""

    def __init__(self, rng: np.random.Generator, width: int, heads: int = 8) -> None:
        self.heads = heads
        self.enter = Convolution(rng, width, width, 1)
        mix = rng.standard_normal((heads, GRID * GRID, GRID * GRID)) * 0.02
        self.mix = tf.Variable(mix, dtype=tf.float32, name="mix")
        self.leave = Convolution(rng, width, width, 1, std=0.0)

    def __call__(self, h: tf.Tensor) -> tf.Tensor:
        """(b, GRID, GRID, width) to the same."""
        width = h.shape[-1]
        x = tf.reshape(gelu(self.enter(h)), (-1, GRID * GRID, self.heads, width // self.heads))
        x = tf.einsum("bshc,hst->bthc", x, tf.cast(self.mix, x.dtype))
        x = tf.reshape(x, (-1, GRID, GRID, width))
        return h + self.leave(gelu(x))


class FastNetwork(Module):
    """Diffraction amplitudes to object patches, one pattern at a time.

    Parameters
    ----------
    config:
        Model configuration; its N, width_scale, steps, patch_size, patches_per_group and amp_activation are
        used.
    rng:
        Draws the weights.
    dtype:
        Arithmetic of the convolutions; the physics between them stays in float32.
    """

    def __init__(self, config: ModelConfig, rng: np.random.Generator, dtype: tf.DType) -> None:
        self.activation, self.dtype = config.amp_activation, dtype
        self.N, self.patch_size, self.patches_per_group = config.N, config.patch_size, config.patches_per_group
        width = max(8, 8 * round(WIDTH * config.width_scale / 8))
        self.block = self.patch_size // GRID  # 1 at N = 32 with a padded object
        wide, seen, steps = self.N // GRID, 4 * self.block**2, range(config.steps)
        self.embed_pattern = Convolution(rng, 2 * wide * wide, width, 1)
        self.mix = MixingBlock(rng, width)
        self.embed = [Convolution(rng, seen, width, 3) for _ in steps]
        self.body = [ResidualBlock(rng, width) for _ in steps]
        self.head = [Convolution(rng, width, 2 * self.block**2, 3, std=1e-3) for _ in steps]

    def __call__(self, amplitudes: tf.Tensor, probe: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
        """Predict the patches of groups, each from its own pattern.

        Parameters
        ----------
        amplitudes:
            (g, C, N, N) float32, root mean square near 1, DC at [0, 0], zero at bad pixels.
        probe:
            (modes, N, N) complex64 in the same scale.
        good:
            (N, N) float32, DC at [0, 0]: 1 where the detector measured, else 0.

        Returns
        -------
        (g, P, n, n) complex64, n the patch size; P is the smaller of C and ``patches_per_group``.
        """
        amplitudes = amplitudes[:, : self.patches_per_group]
        patches = self._solve(tf.reshape(amplitudes, (-1, self.N, self.N)), probe, good)
        return tf.reshape(patches, (-1, amplitudes.shape[1], *patches.shape[1:]))

    def _solve(self, amplitudes: tf.Tensor, probe: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
        """(b, N, N) amplitudes to (b, n, n) patches."""
        n, margin = self.patch_size, (self.N - self.patch_size) // 2
        centre = (..., slice(margin, margin + n), slice(margin, margin + n))
        border = ((0, 0), (0, 0), (margin, margin), (margin, margin))
        inner = probe[centre]
        power = tf.reduce_sum(intensity(inner), axis=0)
        regularised = power + PROBE_REGULARISATION * tf.reduce_max(power)
        # The unitary transform is 1 / N times the plain one: the factor stands where arrays are small.
        direction = tf.math.conj(inner) * as_complex(self.N / regularised)
        inner = inner / self.N
        far_alone = tf.signal.fft2d(probe / self.N)
        h = self.embed_pattern(self._pattern_features(amplitudes))
        h = self.mix(h)
        x = tf.zeros_like(amplitudes[:, :n, :n])
        phase = x
        patch = tf.complex(tf.ones_like(x), x)
        for embed, body, head in zip(self.embed, self.body, self.head, strict=True):
            waves = tf.pad(inner * (patch - 1)[:, None], border)
            field = far_alone + tf.signal.fft2d(waves)  # outside the patch the object is 1
            modelled = tf.reduce_sum(intensity(field), axis=1)
            ratio = good * (amplitudes * tf.math.rsqrt(modelled + MODULUS_FLOOR) - 1)
            back = tf.signal.ifft2d(field * as_complex(ratio)[:, None])[centre]
            step = tf.reduce_sum(direction * back, axis=1)
            seen = [tf.math.real(step), tf.math.imag(step), tf.math.real(patch) - 1, tf.math.imag(patch)]
            seen = pixel_unshuffle(tf.stack(seen, axis=1), self.block)
            h = body(h + embed(tf.cast(seen, self.dtype)))
            change = pixel_shuffle(tf.cast(head(h), tf.float32), self.block)
            x, phase = x + change[:, 0], phase + change[:, 1]
            patch = polar(amplitude(self.activation, x), phase)
        return patch

    def _pattern_features(self, amplitudes: tf.Tensor) -> tf.Tensor:
        """(b, GRID, GRID, 2 (N/GRID)^2): the amplitudes, compressed, and the autocorrelation of the exit wave."""
        auto = tf.math.real(tf.signal.ifft2d(as_complex(amplitudes**2))) * 4
        features = tf.stack([tf.math.log1p(amplitudes), auto], axis=1)
        features = tf.signal.fftshift(features, axes=(-2, -1))
        return tf.cast(pixel_unshuffle(features, self.N // GRID), self.dtype)
