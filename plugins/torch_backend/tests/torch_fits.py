"""Trainings that differ from a tiny one in a few settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptychopinn.config import InferConfig, ModelConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.monitor import NULL_MONITOR
from ptychopinn.reconstructor import TrainResult
from ptychopinn.typing import AnyArray, ComplexArray
from ptychopinn_torch.model import model_arrays
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.reconstructor import TorchReconstructor

TINY_MODEL: Mapping[str, Any] = {"N": 32, "n_filters_scale": 0.1, "iterations": 1, "group_size": 4}
# Four steps an epoch, large enough to see what changes them.
TINY_TRAIN: Mapping[str, Any] = {
    "nepochs": 1,
    "n_groups": 8,
    "batch_size": 2,
    "learning_rate": 0.02,
    "probe_refinement": 0,
}


@dataclass(frozen=True)
class Trained:
    """A training and what came of it."""

    reconstructor: TorchReconstructor
    result: TrainResult

    def patches(self, scan: ScanDataset, **config: Any) -> ComplexArray:
        """All predicted patches of a scan, in order."""
        return patches_of(self.reconstructor, scan, **config)

    def arrays(self) -> dict[str, AnyArray]:
        """What an archive would hold."""
        return model_arrays(self.reconstructor._trained())


Fit = Callable[..., Trained]


def patches_of(reconstructor: TorchReconstructor, scan: ScanDataset, **config: Any) -> ComplexArray:
    """All predicted patches of a scan, in order."""
    batches = list(reconstructor.infer(scan, InferConfig(**config)).batches)
    return np.concatenate([np.zeros((0, 16, 16), np.complex64), *(batch.patches for batch in batches)])


def settings_of(train: Mapping[str, Any] | None = None) -> TrainConfig:
    """The tiny training with other settings."""
    return TrainConfig(**{**TINY_TRAIN, **(train or {})})


def new(model: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None) -> TorchReconstructor:
    """A tiny network, not trained, on the CPU unless other options are given."""
    return TorchReconstructor(
        ModelConfig(**{**TINY_MODEL, **(model or {})}), TorchOptions(**{"accelerator": "cpu", **(options or {})})
    )


def fit_to(
    data: ScanDataset,
    model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    **rest: Any,
) -> Trained:
    """Train for a few steps; sections of settings go over the tiny ones."""
    reconstructor = new(model, options)
    return Trained(reconstructor, reconstructor.train(data, settings_of(train), **{"monitor": NULL_MONITOR, **rest}))
