"""The NumPy backend in the place of what is installed, and tiny scan files."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.plugins import GROUP, discover
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import RunResult, run_settings, train_run


def install_numpy_backend(patch: pytest.MonkeyPatch) -> None:
    """Only the NumPy backend is installed."""
    registry = discover(found=[EntryPoint("numpy", "numpy_backend", GROUP)])
    assert not registry.broken
    for module in ("_train", "_backends"):
        patch.setattr(f"ptychopinn.workflows.{module}.discover", lambda: registry)


@pytest.fixture(autouse=True)
def _numpy_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    install_numpy_backend(monkeypatch)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr("ptychopinn.workflows._outputs.write_pictures", lambda *args, **kwargs: {})


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scans")


@pytest.fixture(scope="session")
def scan_file(folder: Path) -> Path:
    """36 patterns of 32 x 32, with their true object."""
    path = folder / "scan.npz"
    write_scan(path, simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=1)))
    return path


@pytest.fixture(scope="session")
def trained(scan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A finished training; tests that change its directory copy it."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "run"
    train = {"nepochs": 4, "seed": 7, "checkpoint_top_k": 9}
    with pytest.MonkeyPatch.context() as patch:
        install_numpy_backend(patch)
        return train_run(scan_file, folder, run_settings("numpy", train=train, infer={"inference_batch_size": 5}))
