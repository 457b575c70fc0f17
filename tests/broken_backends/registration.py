"""Reconstructors that are not what they were registered as, and one that is healthy."""

from __future__ import annotations

from numpy_backend import NumpyReconstructor

from broken_backends.registry import broken
from ptychopinn.config import InferConfig, ModelConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstructor import (
    Prediction,
)


@broken()
class Healthy(NumpyReconstructor):
    """Nothing is wrong with it."""


@broken("test_the_signatures_are_those_of_the_protocol")
class HasItsOwnSignature(NumpyReconstructor):
    def infer(self, data: ScanDataset, config: InferConfig, monitor: Monitor = NULL_MONITOR) -> Prediction:
        return super().infer(data, config, monitor=monitor)


@broken("test_it_has_the_model_that_was_asked_for")
class ForgetsItsModel(NumpyReconstructor):
    @property
    def model(self) -> ModelConfig:
        return ModelConfig(N=self._config.N)
