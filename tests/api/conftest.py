"""The NumPy backend in the place of what is installed, and a scan in memory."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

import ptychopinn
from ptychopinn.plugins import GROUP, discover


@pytest.fixture(scope="session", autouse=True)
def _numpy_backend() -> None:
    registry = discover(found=[EntryPoint("numpy", "numpy_backend", GROUP)])
    assert not registry.broken
    with pytest.MonkeyPatch.context() as patch:
        for module in ("workflows._train", "workflows._backends", "workflows.pretrained", "api._settings"):
            patch.setattr(f"ptychopinn.{module}.discover", lambda: registry)
        yield


@pytest.fixture(scope="session")
def scan() -> ptychopinn.Scan:
    """64 patterns of 32 x 32, with their true object."""
    return ptychopinn.simulate_scan(N=32, rows=8, cols=8, seed=1)


@pytest.fixture(scope="session")
def model(scan: ptychopinn.Scan) -> ptychopinn.Model:
    return ptychopinn.train(scan, nepochs=3, seed=7)


@pytest.fixture(scope="session")
def result(scan: ptychopinn.Scan, model: ptychopinn.Model) -> ptychopinn.Result:
    return model.infer(scan, uncertainty=True)
