"""Every product explains its scan as well as the log says: probe and positions belong to its object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from product_residual import residual_of

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.errors import PluginError
from ptychopinn.monitor import Monitor
from ptychopinn.product import read_product
from ptychopinn.workflows import RunResult, infer_run, run_settings, solve, stream_run, train_run
from ptychopinn.workflows._solve import solve_run


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr("ptychopinn.workflows._outputs.write_pictures", lambda *args, **kwargs: {})


def check(result: RunResult, scan_file: Path) -> None:
    product = read_product(result.files["product"])
    residual = residual_of(product, read_scan(scan_file))
    assert residual == pytest.approx(result.figures["forward residual R"], rel=1e-3)


REFINED: list[dict[str, Any]] = [
    {},
    {"probe_source": "scan"},
    {"refine": 3, "refine_probe": True},
    {"refine": 3, "refine_positions": True},
    {"refine": 3, "refine_flux": True, "refine_background": "smooth"},
    {"refine": 3, "refine_fly": (0.0, 3.0)},
    {"refine": 3, "refine_probe": True, "refine_probe_variation": 2},
]


@pytest.mark.parametrize("infer", REFINED, ids=lambda infer: "-".join(infer) or "plain")
def test_the_product_of_an_inference(
    trained: RunResult, scan_file: Path, tmp_path: Path, infer: dict[str, Any]
) -> None:
    """[PROD-010]"""
    check(infer_run(trained.folder, scan_file, tmp_path / "out", run_settings(infer=infer)), scan_file)


def test_the_product_of_a_training(scan_file: Path, tmp_path: Path) -> None:
    """[PROD-010] Its probe was refined."""
    settings = run_settings("numpy", train={"nepochs": 2, "probe_refinement": 5})
    check(train_run(scan_file, tmp_path / "run", settings), scan_file)


def test_the_product_of_a_stream(trained: RunResult, scan_file: Path, tmp_path: Path) -> None:
    """[PROD-010]"""
    scan = read_scan(scan_file)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["diff3d"] = np.asarray(scan.patterns)
        file["xcoords"], file["ycoords"] = scan.positions[:, 1], scan.positions[:, 0]
        file["finished"] = 1
    settings = run_settings(reading={"measurement": str(scan.measurement)})
    result = stream_run(
        trained.folder, str(tmp_path / "scan.h5"), tmp_path / "out", settings, interval_s=0, timeout_s=10
    )
    check(result, scan_file)


def test_the_product_of_a_solver(scan_file: Path, tmp_path: Path) -> None:
    """[PROD-010]"""
    check(solve_run(scan_file, tmp_path / "out", solver="epie", options={}), scan_file)


def test_a_solver_that_returns_no_object_and_probe_is_named(scan_file: Path) -> None:
    class Bare:
        def reconstruct(self, data: ScanDataset, *, monitor: Monitor) -> Any:
            return np.ones((3, 4))

    with pytest.raises(PluginError, match=r"type ndarray\. Return one with the attributes object"):
        solve(Bare(), read_scan(scan_file))
