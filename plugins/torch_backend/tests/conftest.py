"""Tiny scans, and trainings that differ in one setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.monitor import NULL_MONITOR
from ptychopinn.reconstructor import TrainResult
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import AnyArray, ComplexArray
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.reconstructor import TorchReconstructor

TINY_MODEL: Mapping[str, Any] = {"N": 32, "n_filters_scale": 0.1, "iterations": 1, "group_size": 4}
# Four steps an epoch, large enough to see what changes them.
TINY_TRAIN: Mapping[str, Any] = {"nepochs": 1, "n_groups": 8, "batch_size": 2, "learning_rate": 0.02}


@dataclass(frozen=True)
class Trained:
    """A training and what came of it."""

    reconstructor: TorchReconstructor
    result: TrainResult

    def patches(self, scan: ScanDataset, **config: Any) -> ComplexArray:
        """All predicted patches of a scan, in order."""
        batches = list(self.reconstructor.infer(scan, InferConfig(**config)).batches)
        return np.concatenate([batch.patches for batch in batches])

    def arrays(self) -> dict[str, AnyArray]:
        """What an archive would hold."""
        from ptychopinn_torch.model import model_arrays

        return model_arrays(self.reconstructor._trained())


Fit = Callable[..., Trained]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The tests share the machine; tiny networks gain nothing from threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scan() -> ScanDataset:
    """25 patterns of 32 x 32 whose object is known."""
    return simulate_scan(SimulationConfig(N=32, rows=5, cols=5, seed=1))


@pytest.fixture(scope="session")
def off_centre() -> ScanDataset:
    """The same with patterns off the centre of the detector, which the probe does not know."""
    return simulate_scan(SimulationConfig(N=32, rows=5, cols=5, seed=1, detector_offset_px=(1.5, -1.0)))


@pytest.fixture(scope="session")
def fit(scan: ScanDataset) -> Fit:
    """Trains for a few steps on the CPU; sections of settings go over the tiny ones."""

    def train(
        model: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        data: ScanDataset | None = None,
        **rest: Any,
    ) -> Trained:
        reconstructor = TorchReconstructor(
            ModelConfig(**{**TINY_MODEL, **(model or {})}), TorchOptions(**{"accelerator": "cpu", **(options or {})})
        )
        config = TrainConfig(**{**TINY_TRAIN, **(train or {})})
        result = reconstructor.train(scan if data is None else data, config, **{"monitor": NULL_MONITOR, **rest})
        return Trained(reconstructor, result)

    return train


@pytest.fixture(scope="session")
def trained(fit: Fit) -> Trained:
    """A training that tests look at and do not change."""
    return fit(train={"nepochs": 3})
