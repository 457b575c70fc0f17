"""The published CNN: the patterns of a group as channels, one encoder, two decoders.

Source: Hoidn, Mishra & Mehta, "Physics constrained unsupervised deep learning for rapid, high resolution scanning
coherent diffraction reconstruction", Sci. Rep. 13, 22789 (2023).

Features are (g, y, x, channels) here; `ptychopinn_tf.model` turns kernels into the archive's layout.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from ptychopinn.config.model import ModelConfig
from ptychopinn.training import BORDER_CHANNELS, level_filters
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.forward import polar
from ptychopinn_tf.module import Module
from ptychopinn_tf.network import Convolution, amplitude


class DoubleConvolution(Module):
    """Two 3 x 3 convolutions with ReLU."""

    def __init__(self, rng: np.random.Generator, entering: int, leaving: int) -> None:
        self.conv1 = _convolution(rng, entering, leaving)
        self.conv2 = _convolution(rng, leaving, leaving)

    def __call__(self, h: tf.Tensor) -> tf.Tensor:
        """(g, y, x, entering) to (g, y, x, leaving)."""
        return tf.nn.relu(self.conv2(tf.nn.relu(self.conv1(h))))


class Decoder(Module):
    """From the deepest grid to one image per patch; ``filters`` are those of the encoder's levels."""

    def __init__(self, config: ModelConfig, filters: list[int], rng: np.random.Generator) -> None:
        patches, rising = config.patches_per_group, filters[::-1]
        width = rising[-1]
        if not config.pad_object:
            rising.append(width)
        self.levels = [DoubleConvolution(rng, a, b) for a, b in pairwise(rising)]
        self.centre = _convolution(rng, width, patches)
        self.probe_big = config.probe_big
        if config.probe_big:
            channels = BORDER_CHANNELS * patches
            self.border_level = DoubleConvolution(rng, width, channels)
            self.border = _convolution(rng, channels, patches)

    def __call__(self, h: tf.Tensor) -> tf.Tensor:
        """(g, y, x, deepest) to (g, P, n, n) float32."""
        for level in self.levels:
            h = _upsample(level(h))
        picture = _pictures(self.centre(h))
        if not self.probe_big:
            return picture
        margin = picture.shape[-1] // 2
        around = ((0, 0), (0, 0), (margin, margin), (margin, margin))
        border = _pictures(self.border(_upsample(self.border_level(h))))
        return tf.pad(picture, around) + border * (1 - tf.pad(tf.ones_like(picture), around))


class CnnNetwork(Module):
    """Diffraction amplitudes of groups to object patches; convolutions compute in ``dtype``."""

    def __init__(self, config: ModelConfig, rng: np.random.Generator, dtype: tf.DType) -> None:
        self.activation, self.dtype = config.amp_activation, dtype
        filters = level_filters(config)
        entering = [config.patterns_per_group, *filters[:-1]]
        self.encoder = [DoubleConvolution(rng, a, b) for a, b in zip(entering, filters, strict=True)]
        self.amplitude_decoder = Decoder(config, filters, rng)
        self.phase_decoder = Decoder(config, filters, rng)

    def prepare_probe(self, probe: tf.Tensor, good: tf.Tensor) -> None:
        """None: this network knows probe and detector only from its training."""

    def __call__(self, amplitudes: tf.Tensor, sampled_probes: None) -> tf.Tensor:
        """Predict the patches of groups.

        (g, C, N, N) float32 amplitudes, root mean square near 1, DC at [0, 0], zero at bad pixels, to (g, P, n, n)
        complex64, P that of ``patches_per_group``.
        """
        h = tf.transpose(tf.signal.fftshift(amplitudes, axes=(-2, -1)), (0, 2, 3, 1))
        h = tf.cast(h, self.dtype)
        for level in self.encoder:
            h = _max_pool(level(h))
        phase = math.pi * tf.tanh(self.phase_decoder(h))
        return polar(amplitude(self.activation, self.amplitude_decoder(h)), phase)


def _max_pool(h: tf.Tensor) -> tf.Tensor:
    """Maximum of 2 x 2 pixels; TensorFlow's pooling has no deterministic gradient with XLA."""
    _, height, width, channels = h.shape
    blocks = tf.reshape(h, (-1, height // 2, 2, width // 2, 2, channels))
    return tf.maximum(*tf.unstack(tf.maximum(*tf.unstack(blocks, axis=2)), axis=3))


def _upsample(h: tf.Tensor) -> tf.Tensor:
    """Repeat every pixel 2 x 2 times, with a deterministic gradient on every device."""
    _, height, width, channels = h.shape
    spread = tf.broadcast_to(h[:, :, None, :, None], (tf.shape(h)[0], height, 2, width, 2, channels))
    return tf.reshape(spread, (-1, 2 * height, 2 * width, channels))


def _pictures(h: tf.Tensor) -> tf.Tensor:
    """(g, y, x, P) to (g, P, y, x) float32."""
    return tf.transpose(tf.cast(h, tf.float32), (0, 3, 1, 2))


def _convolution(rng: np.random.Generator, entering: int, leaving: int) -> Convolution:
    """3 x 3, drawn as published (Glorot & Bengio, AISTATS 2010)."""
    return Convolution(rng, entering, leaving, 3, std=math.sqrt(2 / (9 * (entering + leaving))))
