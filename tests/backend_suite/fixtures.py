"""Fixtures of the suite, for a backend's ``conftest.py``; it gives ``fits`` itself."""

from __future__ import annotations

from typing import Any

import pytest

from backend_suite.fits import Fit, Fits, New, Trained
from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.simulate import simulate_scan


@pytest.fixture(scope="session")
def scan() -> ScanDataset:
    """25 patterns of 32 x 32 whose object is known."""
    return simulate_scan(SimulationConfig(N=32, rows=5, cols=5, seed=1))


@pytest.fixture(scope="session")
def off_centre() -> ScanDataset:
    """The same with patterns off the centre of the detector, which the probe does not know."""
    return simulate_scan(SimulationConfig(N=32, rows=5, cols=5, seed=1, detector_offset_px=(1.5, -1.0)))


@pytest.fixture(scope="session")
def new(fits: Fits) -> New:
    """`Fits.new`."""
    return fits.new


@pytest.fixture(scope="session")
def fit(fits: Fits, scan: ScanDataset) -> Fit:
    """`Fits.fit_to` that scan, or to another one."""

    def train(*sections: Any, data: ScanDataset | None = None, **settings: Any) -> Trained:
        return fits.fit_to(scan if data is None else data, *sections, **settings)

    return train


@pytest.fixture(scope="session")
def trained(fit: Fit) -> Trained:
    """A training that tests look at and do not change."""
    return fit(train={"nepochs": 3})


@pytest.fixture(scope="session")
def base(fit: Fit) -> Trained:
    """What every setting is compared with."""
    return fit()
