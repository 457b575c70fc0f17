"""The fast architecture: an unrolled solver whose every step is learned.

One pattern alone goes in. The network holds an object patch, starting from 1 + 0j; a few times it sends the patch
through the physics under the known probe, compares with the measured amplitudes, projects the difference back to the
patch (the direction in which ePIE would step), and corrects the patch by convolutions that see this difference.
Arithmetic is spent on a 16 x 16 grid whatever N is. Sources: learned primal-dual (Adler & Oktem, IEEE TMI 37, 2018)
for the unrolling; the regularised projection of rPIE (Maiden et al., Optica 4, 736, 2017) for the direction.

Between transforms the pixels of a patch are stored by tiles, (b, GRID^2, pixels of a tile), as the convolutions need
them. Kernels are (y, x, in, out) here; `ptychopinn_tf.model`
turns them into the archive's layout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptychopinn.config.model import AmplitudeActivation, ModelConfig
from ptychopinn.training import DetectorSampling, features_width, network_width, sampling_schedule
from ptychopinn.training.constants import (
    AMPLITUDE_LIMIT,
    GRID,
    HEAD_STD,
    MODULUS_FLOOR,
    PROBE_REGULARISATION,
)
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.forward import as_complex, intensity, polar
from ptychopinn_tf.module import Module

_TILES = GRID * GRID


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


def to_tiles(image: tf.Tensor) -> tf.Tensor:
    """(k, n, n) to (k, GRID^2, (n / GRID)^2): row by row of tiles, and of a tile's pixels."""
    tile = image.shape[-1] // GRID
    tiles = tf.reshape(image, (-1, GRID, tile, GRID, tile))
    return tf.reshape(tf.transpose(tiles, (0, 1, 3, 2, 4)), (-1, _TILES, tile**2))


def from_tiles(tiles: tf.Tensor) -> tf.Tensor:
    """The inverse of `to_tiles`."""
    tile = math.isqrt(tiles.shape[-1])
    n = GRID * tile
    image = tf.transpose(tf.reshape(tiles, (-1, GRID, GRID, tile, tile)), (0, 1, 3, 2, 4))
    return tf.reshape(image, (-1, n, n))


def upsample_tiles(tiles: tf.Tensor, tile: int) -> tf.Tensor:
    """Upsample (b, GRID^2, pixels) to tiles of ``tile`` x ``tile`` pixels by repeating pixels."""
    old = math.isqrt(tiles.shape[-1])
    pixels = tf.reshape(tiles, (-1, _TILES, old, 1, old, 1))
    pixels = tf.tile(pixels, (1, 1, 1, tile // old, 1, tile // old))
    return tf.reshape(pixels, (-1, _TILES, tile**2))


def crop_spectrum(image: tf.Tensor, width: int) -> tf.Tensor:
    """Crop (..., N, N) with DC at [0, 0] to the central (..., width, width)."""
    half, rest = width // 2, image.shape[-1] - width // 2
    if width == image.shape[-1]:
        return image
    rows = tf.concat([image[..., :half, :], image[..., rest:, :]], axis=-2)
    return tf.concat([rows[..., :half], rows[..., rest:]], axis=-1)


def initial_weights(
    rng: np.random.Generator, shape: tuple[int, ...], outputs: int, fan_in: int, std: float | None
) -> tuple[tf.Variable, tf.Variable]:
    """Weights of a shape, and biases.

    With ``std`` None both evenly within ``1 / sqrt(fan in)``, as PyTorch draws them; else normal weights of this
    deviation and biases of 0.
    """
    bound = 1 / math.sqrt(fan_in)
    weight = rng.uniform(-bound, bound, shape) if std is None else std * rng.standard_normal(shape)
    bias = rng.uniform(-bound, bound, outputs) if std is None else np.zeros(outputs)
    return tf.Variable(weight, dtype=tf.float32, name="weight"), tf.Variable(bias, dtype=tf.float32, name="bias")


class Linear(Module):
    """A product with a matrix."""

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int, *, std: float | None = None) -> None:
        self.weight, self.bias = initial_weights(rng, (outputs, inputs), outputs, inputs, std)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """(..., inputs) to (..., outputs), in the arithmetic of ``x``."""
        y = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), tf.cast(self.weight, x.dtype), transpose_b=True)
        y = tf.nn.bias_add(y, tf.cast(self.bias, x.dtype))
        return tf.reshape(y, (-1, *x.shape[1:-1], y.shape[-1]))


class Convolution(Module):
    """A convolution that keeps the size, with an odd width of the kernel."""

    def __init__(
        self, rng: np.random.Generator, inputs: int, outputs: int, size: int, *, std: float | None = None
    ) -> None:
        self.weight, self.bias = initial_weights(rng, (size, size, inputs, outputs), outputs, inputs * size**2, std)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """(b, y, x, inputs) to (b, y, x, outputs), in the arithmetic of ``x``."""
        y = tf.nn.conv2d(x, tf.cast(self.weight, x.dtype), strides=1, padding="SAME")
        return tf.nn.bias_add(y, tf.cast(self.bias, x.dtype))


class ResidualBlock(Module):
    """A 3 x 3 convolution with a skip connection."""

    def __init__(self, rng: np.random.Generator, width: int, dtype: tf.DType) -> None:
        self.conv, self.dtype = Convolution(rng, width, width, 3, std=0.0), dtype

    def __call__(self, h: tf.Tensor) -> tf.Tensor:
        """(b, GRID^2, width) float32 to the same."""
        picture = tf.cast(tf.reshape(h, (-1, GRID, GRID, h.shape[-1])), self.dtype)
        return h + tf.reshape(tf.cast(self.conv(gelu(picture)), h.dtype), (-1, _TILES, h.shape[-1]))


class Embedding(Module):
    """Adds a linear function of two inputs to the features of every grid cell, without bias."""

    def __init__(self, rng: np.random.Generator, inputs: int, width: int) -> None:
        self.weight, _ = initial_weights(rng, (width, inputs), width, inputs, None)

    def __call__(self, h: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """(b, GRID^2, width), (b, GRID^2, p) and (b, GRID^2, q) float32, p + q the inputs, to (b, GRID^2, width)."""
        weights = tf.split(self.weight, [first.shape[-1], second.shape[-1]], axis=1)
        for part, weight in zip((first, second), weights, strict=True):
            change = tf.matmul(tf.reshape(part, (-1, part.shape[-1])), weight, transpose_b=True)
            h += tf.reshape(change, (-1, _TILES, h.shape[-1]))
        return h


class MixingBlock(Module):
    """Mixes all grid cells: per channel, one matrix acts along columns and one along rows.

    The Fourier transform, which relates a pattern to its object, has this form.
    """

    def __init__(self, rng: np.random.Generator, width: int) -> None:
        self.enter = Linear(rng, width, width)
        self.down, self.along = (
            tf.Variable(rng.standard_normal((width, GRID, GRID)) * GRID**-0.5, dtype=tf.float32, name=name)
            for name in ("down", "along")
        )
        self.leave = Linear(rng, width, width, std=0.0)

    def __call__(self, h: tf.Tensor) -> tf.Tensor:
        """(b, GRID^2, width) to the same."""
        width = h.shape[-1]
        x = tf.reshape(gelu(self.enter(h)), (-1, GRID, GRID, width))
        x = tf.einsum("byxc,cyt->btxc", x, tf.cast(self.down, x.dtype))
        x = tf.einsum("btxc,cxs->btsc", x, tf.cast(self.along, x.dtype))
        return h + self.leave(gelu(tf.reshape(x, (-1, _TILES, width))))


@dataclass(frozen=True, eq=False)
class SampledProbe:
    """The probe prepared for a `DetectorSampling`."""

    # (..., modes, GRID^2, pixels) complex64: factors on the patch less 1 before propagation, and on the back-propagated
    # difference.
    probe: tf.Tensor
    direction: tf.Tensor
    alone: tf.Tensor  # (..., modes, n, n) complex64, the far field for an object that is 1 everywhere
    good: tf.Tensor  # (n, n) float32, 1 where the detector measured

    @classmethod
    def of(cls, sampling: DetectorSampling, probe: tf.Tensor, good: tf.Tensor) -> SampledProbe:
        """From a probe (modes, N, N), or (b, modes, N, N), one per pattern, and good pixels (N, N)."""
        n, margin = sampling.n, (sampling.N - sampling.n) // 2
        if probe.shape[-1] > sampling.N:
            # About the middle of the picture, that is the origin of both grids.
            turned = tf.signal.fft2d(tf.signal.ifftshift(probe / probe.shape[-1], axes=(-2, -1)))
            probe = tf.signal.fftshift(tf.signal.ifft2d(crop_spectrum(turned, sampling.N) * sampling.N), axes=(-2, -1))
        # With the patch in the corner, every stride-th frequency is a transform of n pixels.
        probe = tf.roll(probe, (-margin, -margin), axis=(-2, -1))
        inner = probe[..., :n, :n]
        power = tf.reduce_sum(intensity(inner), axis=-3, keepdims=True)
        regularised = power + PROBE_REGULARISATION * tf.reduce_max(power, axis=(-2, -1), keepdims=True)
        # What is seen of the detector stands for all of it.
        direction = tf.math.conj(inner) * as_complex(sampling.stride**2 / sampling.N / regularised)
        pixel = np.arange(n)
        y, x = (-2 * math.pi * first / sampling.N * pixel for first in sampling.offset)
        ramp = np.exp(1j * (y[:, None] + x)).astype(np.complex64)

        def tiles(image: tf.Tensor) -> tf.Tensor:
            found = to_tiles(image)
            return found if len(image.shape) == 3 else tf.reshape(found, (-1, tf.shape(image)[1], *found.shape[1:]))

        return cls(
            probe=tiles(inner * (ramp / sampling.N)),
            direction=tiles(direction * ramp.conj()),
            alone=tf.signal.fft2d(probe / sampling.N)[..., *sampling.pixels],
            good=crop_spectrum(good, sampling.N)[..., *sampling.pixels],
        )

    def far_field(self, more: tf.Tensor) -> tf.Tensor:
        """Far field (b, modes, n, n) of patches less 1, (b, GRID^2, pixels); the object is 1 outside a patch."""
        waves = from_tiles(tf.reshape(self.probe * more[:, None], (-1, *more.shape[1:])))
        return self.alone + tf.reshape(tf.signal.fft2d(waves), (-1, tf.shape(self.probe)[-3], *waves.shape[1:]))


class FastNetwork(Module):
    """Diffraction amplitudes to object patches, one pattern at a time.

    Convolutions compute in ``dtype``; the physics between them stays in float32.
    """

    def __init__(self, config: ModelConfig, rng: np.random.Generator, dtype: tf.DType) -> None:
        self.activation, self.dtype = config.amp_activation, dtype
        self.N, self.patches_per_group = config.N, config.patches_per_group
        self.samplings = sampling_schedule(config)
        self.seen_width = features_width(config)
        width = network_width(config)
        pixels = [sampling.tile**2 for sampling in self.samplings]
        self.embed_pattern = Linear(rng, (self.seen_width // GRID) ** 2, width)
        self.mix = MixingBlock(rng, width)
        self.embed = [Embedding(rng, 4 * count, width) for count in pixels]
        self.body = [ResidualBlock(rng, width, dtype) for _ in pixels]
        self.head = [Linear(rng, width, 2 * count, std=HEAD_STD) for count in pixels]

    def prepare_probe(self, probe: tf.Tensor, good: tf.Tensor) -> dict[DetectorSampling, SampledProbe]:
        """Prepare the probe for predictions, as `Model` does, but in the scale of the amplitudes."""
        return {sampling: SampledProbe.of(sampling, probe, good) for sampling in dict.fromkeys(self.samplings)}

    def __call__(self, amplitudes: tf.Tensor, sampled_probes: dict[DetectorSampling, SampledProbe]) -> tf.Tensor:
        """Predict the patches of groups, each from its own pattern.

        (g, C, N, N) float32 amplitudes, root mean square near 1, DC at [0, 0], zero at bad pixels, to (g, P, n, n)
        complex64, n the patch size, P the smaller of C and ``patches_per_group``.
        """
        amplitudes = amplitudes[:, : self.patches_per_group]
        patches = self._solve(tf.reshape(amplitudes, (-1, self.N, self.N)), sampled_probes)
        return tf.reshape(patches, (-1, amplitudes.shape[1], *patches.shape[1:]))

    def _solve(self, amplitudes: tf.Tensor, sampled_probes: dict[DetectorSampling, SampledProbe]) -> tf.Tensor:
        """(b, N, N) amplitudes to (b, n, n) patches."""
        modes = tf.shape(next(iter(sampled_probes.values())).probe)[-3]
        centres = {
            width: crop_spectrum(amplitudes, width)
            for width in {self.seen_width, *(sampling.N for sampling in self.samplings)}
        }
        features = to_tiles(tf.math.log1p(centres[self.seen_width]))
        h = tf.cast(self.mix(self.embed_pattern(tf.cast(features, self.dtype))), tf.float32)
        x = tf.zeros_like(amplitudes[:, :1, :1]) * tf.zeros((1, _TILES, 1))
        phase, more = x, tf.complex(x, x)  # more is the patch less 1
        for sampling, embed, body, head in zip(self.samplings, self.embed, self.body, self.head, strict=True):
            light, pixels = sampled_probes[sampling], sampling.tile**2
            if x.shape[-1] < pixels:
                x, phase, more = (upsample_tiles(values, sampling.tile) for values in (x, phase, more))
            measured = centres[sampling.N][:, *sampling.pixels]
            field = light.far_field(more)
            modelled = tf.reduce_sum(intensity(field), axis=1)
            ratio = light.good * (measured * tf.math.rsqrt(modelled + MODULUS_FLOOR) - 1)
            # The inverse transform divides by the number of pixels, which the adjoint does not.
            missed = tf.reshape(field * as_complex(sampling.n**2 * ratio)[:, None], (-1, sampling.n, sampling.n))
            back = tf.reshape(to_tiles(tf.signal.ifft2d(missed)), (-1, modes, _TILES, pixels))
            step = tf.reduce_sum(light.direction * back, axis=1)
            parts = (tf.stack([tf.math.real(z), tf.math.imag(z)], axis=-1) for z in (step, more))
            h = body(embed(h, *(tf.reshape(part, (-1, _TILES, 2 * pixels)) for part in parts)))
            change = tf.cast(head(tf.cast(h, self.dtype)), tf.float32)
            x, phase = x + change[..., :pixels], phase + change[..., pixels:]
            more = polar(amplitude(self.activation, x), phase) - 1
        return from_tiles(more) + 1
