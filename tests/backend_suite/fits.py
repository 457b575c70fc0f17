"""Trainings that differ from a tiny one in a few settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from ptychopinn.config import InferConfig, ModelConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.monitor import NULL_MONITOR
from ptychopinn.reconstructor import TrainResult
from ptychopinn.training import NetworkReconstructor
from ptychopinn.typing import AnyArray, ComplexArray

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

    reconstructor: NetworkReconstructor[Any]
    result: TrainResult

    def patches(self, scan: ScanDataset, **config: Any) -> ComplexArray:
        """All predicted patches of a scan, in order."""
        return patches_of(self.reconstructor, scan, **config)

    def arrays(self) -> dict[str, AnyArray]:
        """What an archive would hold."""
        return self.reconstructor._to_arrays(self.reconstructor.trained_model())


Fit = Callable[..., Trained]
New = Callable[..., NetworkReconstructor[Any]]


def patches_of(reconstructor: NetworkReconstructor[Any], scan: ScanDataset, **config: Any) -> ComplexArray:
    """All predicted patches of a scan, in order."""
    prediction = reconstructor.infer(scan, InferConfig(**config))
    none = np.zeros((0, prediction.patch_size, prediction.patch_size), np.complex64)
    return np.concatenate([none, *(prediction.library.to_host(batch.patches) for batch in prediction.batches)])


def settings_of(train: Mapping[str, Any] | None = None) -> TrainConfig:
    """The tiny training with other settings."""
    return TrainConfig(**{**TINY_TRAIN, **(train or {})})


def differs(a: Trained, b: Trained, prefix: str = "") -> bool:
    """Whether two trainings made different models."""
    first, second = a.arrays(), b.arrays()
    names = [name for name in first if name.startswith(prefix)]
    assert names
    return first.keys() != second.keys() or any(
        first[name].shape != second[name].shape or not np.allclose(first[name], second[name], rtol=1e-4, atol=1e-6)
        for name in names
    )


@dataclass(frozen=True)
class Fits:
    """The trainings of one backend.

    Attributes
    ----------
    cls, options:
        The reconstructor and its options.
    module:
        Where other processes import this instance from, by the name ``FITS``; it lies beside the tests.
    folder:
        That place.
    """

    cls: type[NetworkReconstructor[Any]]
    options: type[BaseModel]
    module: str
    folder: Path

    def new(
        self, model: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None
    ) -> NetworkReconstructor[Any]:
        """A tiny network, not trained, on the CPU unless other options are given."""
        return self.cls(
            ModelConfig(**{**TINY_MODEL, **(model or {})}), self.options(**{"accelerator": "cpu", **(options or {})})
        )

    def fit_to(
        self,
        data: ScanDataset,
        model: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> Trained:
        """Train for a few steps; sections of settings go over the tiny ones."""
        made = self.new(model, options)
        return Trained(made, made.train(data, settings_of(train), **{"monitor": NULL_MONITOR, **rest}))

    def command(self, code: str, *arguments: object) -> list[str]:
        """A command that runs code in a fresh process with ``FITS`` there."""
        paths = [str(self.folder), str(Path(__file__).parents[1]), *sys.path]
        start = f"import sys; sys.path[:0] = {paths!r}\nfrom {self.module} import FITS\n"
        return [sys.executable, "-c", start + code, *map(str, arguments)]
