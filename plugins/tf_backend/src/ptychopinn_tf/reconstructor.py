"""The TensorFlow reconstructor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.config.model import ModelConfig
from ptychopinn.monitor import Monitor
from ptychopinn.training import Fit, IlluminationArrays, MicroBatches, NetworkReconstructor, TrainingPlan
from ptychopinn.training.base import Predict
from ptychopinn.training.processes import Place, follow_launched
from ptychopinn.training.ranks import Ranks
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.arrays import DlpackLibrary, choose_library, is_out_of_memory
from ptychopinn_tf.devices import Device, choose_device, exact_float32, limit_threads
from ptychopinn_tf.model import Illumination, Model, model_arrays, model_from_arrays
from ptychopinn_tf.options import TfOptions
from ptychopinn_tf.ranks import device_options, find_place, join_launched, open_ranks
from ptychopinn_tf.sources import device_budget
from ptychopinn_tf.training import TrainingLoop

_log = logging.getLogger("ptychopinn.tf")


class TfReconstructor(NetworkReconstructor[Model]):
    """A network in TensorFlow; see `ptychopinn.reconstructor.Reconstructor` for the contract."""

    backend = "tf"
    distribution = "ptychopinn-tf"
    framework = f"tensorflow {tf.__version__}"
    options_model = TfOptions

    def __init__(self, model: ModelConfig, options: TfOptions | None = None) -> None:
        super().__init__(model, options)
        place = find_place(self._options)
        # A launcher gives each process its own cores.
        limit_threads(self._options.threads, self._options.devices if place is None else 1)
        own = device_options(self._options, 0 if place is None else place.local_rank)
        self._device = Device(choose_device(own), xla=self._options.xla)
        self._function: tuple[Model, Callable[..., tf.Tensor]] | None = None
        _log.info("Computing on %s.", self._device)

    @cached_property
    def library(self) -> ArrayLibrary:
        """CuPy on a GPU if it is installed, else NumPy."""
        if not self._device.on_gpu:
            return NUMPY
        return choose_library(
            self._device.name,
            deterministic=self._options.deterministic,
            budget_mb=self._options.device_memory_budget_mb,
        )

    @property
    def device(self) -> Device:
        """The device in use."""
        return self._device

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self._device.on_gpu

    @property
    def _needs_own_threads(self) -> bool:
        return True

    def _build(self, illumination: IlluminationArrays, seed: int) -> Model:
        with self._device.scope():
            module = Illumination(illumination.probe, illumination.offset_px, illumination.log_intensity)
            return Model(self._config, module, self._options.precision, seed)

    def _to_arrays(self, model: Model) -> dict[str, AnyArray]:
        return model_arrays(model)

    def _from_arrays(self, arrays: Mapping[str, AnyArray]) -> Model:
        with self._device.scope():
            return model_from_arrays(self._config, arrays, self._options.precision)

    def _unit_probe(self, model: Model) -> ComplexArray:
        probe: ComplexArray = model.illumination().numpy()
        return probe

    def _open_ranks(self) -> AbstractContextManager[Ranks]:
        return open_ranks(self._options, on_gpu=self.on_gpu)

    @classmethod
    def follow_launched(cls, options: TfOptions, monitor: Monitor) -> bool:
        """Train as another process orders; see `ptychopinn.reconstructor.TrainsTogether`."""

        def follow(place: Place, ranks: Ranks) -> None:
            cls.follow(device_options(options, place.local_rank), ranks)

        return follow_launched(find_place(options), join_launched, follow, monitor)

    def _make_fit(self, model: Model, plan: TrainingPlan) -> Fit[Model]:
        budget = device_budget(self._options, self._device, self.library)
        return TrainingLoop(model, plan, self._options, self._device, MicroBatches(self._out_of_memory), budget)

    def _predictor(
        self, model: Model, scan_probe: ComplexArray | None, mean_counts: float, good: FloatArray
    ) -> tuple[Array, Predict]:
        light = model.illumination
        if scan_probe is not None:
            with self._device.scope():
                light = Illumination(scan_probe, np.zeros(2))
        with self._device.scope():
            probe = light()
            fixed = (tf.constant(mean_counts, tf.float32), probe, tf.constant(good))
        compiled, (to_tensor, from_tensor) = self._compiled(model), self._converters()
        largest = 0

        def predict(counts: Array) -> Array:
            nonlocal largest
            count = counts.shape[0]
            size = max(largest, count) if self._options.xla else count
            try:
                with exact_float32(deterministic=self._options.deterministic), self._device.scope():
                    tensor = to_tensor(counts)  # keeps the memory until the patches are computed
                    patches = compiled(_pad_batch(tensor, size), *fixed)
                    found = from_tensor(patches if size == count else patches[:count])
            except Exception:
                largest = 0  # after memory ran out, the next batch may be smaller
                raise
            largest = size
            return found

        return from_tensor(probe), predict

    def _converters(self) -> tuple[Callable[[Array], tf.Tensor], Callable[[tf.Tensor], Array]]:
        """Functions that convert arrays of the library to tensors and back."""
        library = self.library
        if isinstance(library, DlpackLibrary):
            return library.to_tensor, library.from_tensor
        return tf.constant, lambda tensor: tensor.numpy()

    def _compiled(self, model: Model) -> Callable[..., tf.Tensor]:
        """Predict the first patch of every group with a function that is traced once for all sizes.

        XLA compiles it anew for each size: `_predictor` fills smaller batches up.
        """
        if self._function is None or self._function[0] is not model:
            C, N = self._config.patterns_per_patch, self._config.N  # noqa: N806
            shapes = ((None, C, N, N), tf.float32), ((), tf.float32), ((None, N, N), tf.complex64), ((N, N), tf.float32)
            signature = [tf.TensorSpec(shape, dtype) for shape, dtype in shapes]

            def patches(counts: tf.Tensor, mean_counts: tf.Tensor, probe: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
                return model(counts, mean_counts, model.prepare_probe(probe, good))[:, 0]

            first = self._device.function(patches, input_signature=signature)
            self._function = model, first
        return self._function[1]

    def _out_of_memory(self, error: BaseException) -> bool:
        return self.library.out_of_memory(error) or is_out_of_memory(error)


def _pad_batch(tensor: tf.Tensor, size: int) -> tf.Tensor:
    """Pad a batch with zeros to ``size`` entries."""
    missing = size - len(tensor)
    return tensor if missing == 0 else tf.pad(tensor, [[0, missing], *[[0, 0]] * (len(tensor.shape) - 1)])
