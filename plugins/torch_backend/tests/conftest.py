"""Tiny scans and one tiny training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_fits import Fit, Trained, fit_to

from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.simulate import simulate_scan


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
    """`fit_to` that scan, or to another one."""

    def train(*sections: Any, data: ScanDataset | None = None, **settings: Any) -> Trained:
        return fit_to(scan if data is None else data, *sections, **settings)

    return train


@pytest.fixture(scope="session")
def trained(fit: Fit) -> Trained:
    """A training that tests look at and do not change."""
    return fit(train={"nepochs": 3})
