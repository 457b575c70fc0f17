"""Reconstructors whose arrays are on a device of their own, and wrong about these arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import array_api_compat.numpy
import numpy as np
from numpy_backend import NumpyReconstructor

from broken_backends.registry import broken
from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.config import InferConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstructor import (
    Prediction,
)
from ptychopinn.training.base import Predict
from ptychopinn.typing import AnyArray


class DeviceArray(np.ndarray[Any, Any]):
    """An array that lies on a device."""


class DeviceLibrary(ArrayLibrary):
    """NumPy as on a device: its arrays are of another type than those of the host."""

    def __init__(self, name: str = "a device") -> None:
        super().__init__(array_api_compat.numpy, name=name)

    @property
    def budget_bytes(self) -> int:
        return 1 << 30  # with none the host would do what follows

    def from_host(self, array: AnyArray) -> Array:
        return np.array(array).view(DeviceArray)

    def to_host(self, array: Array) -> AnyArray:
        return np.array(array)


class Doubtful(DeviceLibrary):
    """Adds windows a pixel too far."""

    def add_windows(self, canvas: Array, windows: Array, corners: Array) -> Array:
        return super().add_windows(canvas, windows, corners + 1)


class OnADevice(NumpyReconstructor):
    """Predicts there."""

    device_library = DeviceLibrary()

    @property
    def library(self) -> ArrayLibrary:
        return self.device_library

    def _predictor(self, *args: Any) -> tuple[Array, Predict]:
        library = self.library
        probe, predict = super()._predictor(*args)
        return library.from_host(probe), lambda counts: library.from_host(predict(library.to_host(counts)))


@broken()
class HealthyOnADevice(OnADevice):
    """Nothing is wrong with it either."""


@broken("test_arrays_are_those_of_the_library")
class KeepsPatchesOnTheHost(OnADevice):
    def _predictor(self, *args: Any) -> tuple[Array, Predict]:
        probe, predict = super()._predictor(*args)
        return probe, lambda counts: self.library.to_host(predict(counts))


@broken("test_arrays_are_those_of_the_library")
class KeepsTheProbeOnTheHost(OnADevice):
    def _predictor(self, *args: Any) -> tuple[Array, Predict]:
        probe, predict = super()._predictor(*args)
        return self.library.to_host(probe), predict


@broken("test_arrays_are_those_of_the_library")
class NamesAnotherLibrary(NumpyReconstructor):
    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        return replace(super().infer(data, config, monitor=monitor), library=DeviceLibrary())


@broken("test_arrays_are_those_of_the_library")
class KeepsPatternsOfAnotherLibrary(OnADevice):
    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        prediction = super().infer(data, config, monitor=monitor)
        patterns = None if prediction.patterns is None else Patterns(data, DeviceLibrary("another device"))
        return replace(prediction, patterns=patterns)


@broken("test_what_follows_is_computed_with_the_library")
class HasADoubtfulLibrary(OnADevice):
    device_library = Doubtful()
