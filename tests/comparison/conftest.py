"""A pair of tiny scans, plugins that are installed for the processes of candidates too, and a finished comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_distribution import install_plugins

from ptychopinn.comparison import ComparisonResult, compare_run
from ptychopinn.config import SimulationConfig
from ptychopinn.config.run import AllSettings
from ptychopinn.data.io import write_scan
from ptychopinn.simulate import simulate_scan

SHARED: dict[str, Any] = {"train": {"nepochs": 2}, "solver": {"passes": 5}}
LEGS = ("numpy-pinn", "epie", "hog", "numpy-supervised", "flat")


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugins(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """64 patterns of 32 x 32 each, with their true objects."""
    folder = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate(("train.npz", "test.npz"), start=1):
        write_scan(folder / name, simulate_scan(SimulationConfig(N=32, rows=8, cols=8, seed=seed)))
    return folder / "train.npz", folder / "test.npz"


@pytest.fixture(scope="session")
def finished(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> ComparisonResult:
    """A comparison of which two candidates fail; tests that change its directory copy it."""
    with pytest.MonkeyPatch.context() as patch:
        install_plugins(tmp_path_factory.mktemp("toys"), patch)
        return compare_run(
            *pair,
            tmp_path_factory.mktemp("compared") / "out",
            AllSettings(**SHARED, comparison={"legs": LEGS, "memory_mb": 700, "baseline": "epie"}),
        )
