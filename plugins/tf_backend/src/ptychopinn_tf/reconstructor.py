"""The TensorFlow reconstructor: what `ptychopinn.training.NetworkReconstructor` leaves to a framework."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np

from ptychopinn.config.model import ModelConfig
from ptychopinn.training import Fit, Light, NetworkReconstructor, Parts, TrainingPlan
from ptychopinn.training.base import Predict
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.batches import fill_up
from ptychopinn_tf.devices import Devices, arithmetic, choose_devices
from ptychopinn_tf.model import Illumination, Model, model_arrays, model_from_arrays
from ptychopinn_tf.options import TfOptions
from ptychopinn_tf.training import TrainingLoop

_log = logging.getLogger("ptychopinn.tf")
_MEMORY_SIGNS = (
    "RESOURCE_EXHAUSTED",
    "out of memory",
    "OOM when allocating",
    "failed to allocate",
    "bad_alloc",
    "Dst tensor is not initialized",  # of a copy to a GPU that is full
)


class TfReconstructor(NetworkReconstructor[Model]):
    """A network in TensorFlow; see `ptychopinn.reconstructor.Reconstructor` for the contract.

    Parameters
    ----------
    model:
        Configuration of the network.
    options:
        Where and how to compute.
    """

    backend = "tf"
    distribution = "ptychopinn-tf"
    framework = f"tensorflow {tf.__version__}"
    options_model = TfOptions

    def __init__(self, model: ModelConfig, options: TfOptions | None = None) -> None:
        super().__init__(model, options)
        self._devices = Devices(choose_devices(self._options), xla=self._options.xla)
        self._function: tuple[Model, Callable[..., tf.Tensor]] | None = None
        _log.info("Computing on %s.", self._devices)

    @property
    def device(self) -> Devices:
        """The devices in use."""
        return self._devices

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self._devices.on_gpu

    def _build(self, light: Light, seed: int) -> Model:
        with self._devices.scope():
            illumination = Illumination(light.probe, light.offset_px, light.log_intensity)
            return Model(self._config, illumination, self._options.precision, seed)

    def _to_arrays(self, model: Model) -> dict[str, AnyArray]:
        return model_arrays(model)

    def _from_arrays(self, arrays: Mapping[str, AnyArray]) -> Model:
        with self._devices.scope():
            return model_from_arrays(self._config, arrays, self._options.precision)

    def _unit_probe(self, model: Model) -> ComplexArray:
        probe: ComplexArray = model.illumination().numpy()
        return probe

    def _start(self, model: Model, plan: TrainingPlan) -> Fit[Model]:
        return TrainingLoop(model, plan, self._options, self._devices, Parts(self._out_of_memory))

    def _predictor(
        self, model: Model, scan_light: ComplexArray | None, mean_counts: float, good: FloatArray
    ) -> tuple[ComplexArray, Predict]:
        light = model.illumination
        if scan_light is not None:
            with self._devices.first():
                light = Illumination(scan_light, np.zeros(2))
        with self._devices.first():
            probe = light()
            fixed = (tf.constant(mean_counts, tf.float32), probe, tf.constant(good))
        compiled = self._compiled(model)
        largest = 0

        def predict(counts: FloatArray) -> ComplexArray:
            nonlocal largest
            size = max(largest, len(counts)) if self._options.xla else len(counts)
            try:
                with arithmetic(deterministic=self._options.deterministic), self._devices.first():
                    patches: ComplexArray = compiled(tf.constant(fill_up(counts, size)), *fixed).numpy()[: len(counts)]
            except Exception:
                largest = 0  # memory may have run out, and the next batch be smaller
                raise
            largest = size
            return patches

        return probe.numpy(), predict

    def _compiled(self, model: Model) -> Callable[..., tf.Tensor]:
        """The first patch of every group, by a function that is traced once for all sizes of batches and probes.

        XLA compiles it anew for each size: `_predictor` fills smaller batches up.
        """
        if self._function is None or self._function[0] is not model:
            C, N = self._config.patterns_per_patch, self._config.N  # noqa: N806
            shapes = ((None, C, N, N), tf.float32), ((), tf.float32), ((None, N, N), tf.complex64), ((N, N), tf.float32)
            signature = [tf.TensorSpec(shape, dtype) for shape, dtype in shapes]

            def patches(counts: tf.Tensor, mean_counts: tf.Tensor, probe: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
                return model(counts, mean_counts, model.lit(probe, good))[:, 0]

            first = self._devices.function(patches, input_signature=signature)
            self._function = model, first
        return self._function[1]

    def _out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, tf.errors.ResourceExhaustedError | MemoryError):
            return True
        return isinstance(error, tf.errors.OpError | RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)
