"""The model in an archive: the network and its illumination."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ptychopinn.config.execution import Precision
from ptychopinn.config.model import Architecture, ModelConfig
from ptychopinn.training import (
    DetectorSampling,
    IlluminationArrays,
    illumination_from_tensors,
    illumination_tensors,
    network_tensors,
)
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.cnn import CnnNetwork
from ptychopinn_tf.forward import as_complex, polar
from ptychopinn_tf.module import Module
from ptychopinn_tf.network import FastNetwork, SampledProbe


class Illumination(Module):
    """The probe in units of the square root of a scan's mean counts, the detector's offset, and a factor on counts.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64, initially with the energy 1 on the detector.
    offset_px:
        (2,) (y, x): shift of the patterns from the probe's far field, detector pixels.
    log_intensity:
        Natural logarithm of a factor on all counts.
    """

    def __init__(self, probe: ComplexArray, offset_px: FloatArray, log_intensity: float = 0.0) -> None:
        probe = np.asarray(probe, np.complex64)
        peak = np.abs(probe).max()
        # A variable of size 1 lets one learning rate serve probes of any width.
        values = np.stack([probe.real, probe.imag], axis=-1) / peak
        self.peak = tf.Variable(peak, trainable=False, dtype=tf.float32, name="peak")
        self.values = tf.Variable(values, dtype=tf.float32, name="values")
        self.log_intensity = tf.Variable(log_intensity, dtype=tf.float32, name="log_intensity")
        self.offset_px = tf.Variable(offset_px, trainable=False, dtype=tf.float32, name="offset_px")

    def bare(self) -> tf.Tensor:
        """(modes, N, N) complex64: the probe without offset and trim."""
        return tf.complex(self.values[..., 0], self.values[..., 1]) * as_complex(self.peak)

    def __call__(self) -> tf.Tensor:
        """(modes, N, N) complex64; multiplied by the root of a scan's mean counts, the probe of the physics."""
        n = self.values.shape[1]
        grid = (tf.range(n, dtype=tf.float32) - (n - 1) / 2) * (2 * math.pi / n)
        angle = self.offset_px[0] * grid[:, None] + self.offset_px[1] * grid[None, :]
        return self.bare() * polar(tf.exp(0.5 * self.log_intensity), angle)


class Model(Module):
    """Network and illumination: what is trained and saved.

    ``precision`` is the arithmetic of the network; the physics stays in float32.
    """

    def __init__(self, config: ModelConfig, illumination: Illumination, precision: Precision, seed: int = 0) -> None:
        dtype = tf.bfloat16 if precision is Precision.BFLOAT16 else tf.float32
        self._arguments = (config, precision)
        network = FastNetwork if config.architecture is Architecture.FAST else CnnNetwork
        self.network = network(config, np.random.default_rng(seed), dtype)
        self.illumination = illumination

    def copy(self) -> Model:
        """The same weights in variables of their own, made where the caller says."""
        config, precision = self._arguments
        light = self.illumination
        other = Model(config, Illumination(light.bare().numpy(), light.offset_px.numpy()), precision)
        for name, variable in self.variables().items():
            other.variables()[name].assign(variable)
        return other

    def prepare_probe(self, probe: tf.Tensor, good: tf.Tensor) -> dict[DetectorSampling, SampledProbe] | None:
        """Prepare the probe for predictions; see `ptychopinn.training.objective.TrainedModel`."""
        return self.network.prepare_probe(probe * probe.shape[-1], good)

    def __call__(
        self, counts: tf.Tensor, mean_counts: tf.Tensor, sampled_probes: dict[DetectorSampling, SampledProbe] | None
    ) -> tf.Tensor:
        """Predict the patches of groups from their counts; see `ptychopinn.training.objective.TrainedModel`."""
        N = counts.shape[-1]  # noqa: N806
        # Each network gets what its own `prepare_probe` has made.
        return self.network(tf.sqrt(counts) * (N / tf.sqrt(mean_counts)), sampled_probes)  # type: ignore[arg-type]


def model_arrays(model: Model) -> dict[str, AnyArray]:
    """The tensors of a model under framework-neutral names.

    Convolutions are (out, in, y, x); the probe is (modes, N, N) complex64 in root mean counts, without the offset.
    """
    arrays = {
        f"network/{name}": _to_archive_layout(variable.numpy()) for name, variable in model.network.variables().items()
    }
    light = model.illumination
    illumination = IlluminationArrays(light.bare().numpy(), light.offset_px.numpy(), float(light.log_intensity.numpy()))
    return arrays | illumination_tensors(illumination)


def _to_archive_layout(array: AnyArray) -> AnyArray:
    """Kernels (y, x, in, out) to (out, in, y, x); whatever is no kernel stays."""
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if array.ndim == 4 else array


def _from_archive_layout(array: AnyArray) -> AnyArray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def model_from_arrays(config: ModelConfig, arrays: Mapping[str, AnyArray], precision: Precision) -> Model:
    """The inverse of `model_arrays`. Raises ArchiveError if tensors are missing or do not fit the configuration."""
    light = illumination_from_tensors(config, arrays)
    model = Model(config, Illumination(light.probe, light.offset_px, light.log_intensity), precision)
    variables = model.network.variables()
    shapes = {name: _to_archive_layout(np.empty(variable.shape, bool)).shape for name, variable in variables.items()}
    for name, array in network_tensors(arrays, shapes).items():
        variables[name].assign(_from_archive_layout(array))
    return model
