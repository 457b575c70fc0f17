"""Positions and flux of scans in tiles: specs/28-tiles.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiled_workers import InThisProcess, difference, fixed_middle, picture

from ptychopinn.config import SimulationConfig
from ptychopinn.config.run import AllSettings
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan
from ptychopinn.tiled import tiled_run
from ptychopinn.workflows import RunResult

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_pictures() -> Iterator[None]:
    """They take longer than all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptychopinn.tiled.outputs.write_pictures", lambda *_: {})
        yield


def simulated(rows: int, nphotons: float) -> ScanDataset:
    """A beam that flickers."""
    settings = SimulationConfig(N=32, rows=rows, cols=8, step_px=3, nphotons=nphotons, flux_deviation=0.2, seed=3)
    return simulate_scan(settings)


def run(scan: ScanDataset, folder: Path, tiles: int, free: list[str]) -> RunResult:
    write_scan(folder / "scan.npz", scan)
    settings = AllSettings(tiles={"tiles": tiles, "passes": 5}, automatic={"may_free": free})
    output = folder / f"{tiles} {len(free)}"
    return tiled_run(folder / "scan.npz", output, settings, model="none", workers=InThisProcess())


def test_positions_and_flux_are_those_of_one_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[TILE-009] They are freed because held-out patterns of the middle are explained better."""
    scan = simulated(36, 1e6)
    off = np.random.default_rng(0).normal(0, 0.7, scan.positions.shape)
    scan = replace(scan, positions=scan.positions + off)
    free = ["positions", "flux"]
    three, fixed = run(scan, tmp_path, 3, free), run(scan, tmp_path, 1, [])
    monkeypatch.setattr("ptychopinn.tiled.worker.solve_middle", fixed_middle(None, free))
    one = run(scan, tmp_path, 1, free)
    assert difference(picture(three), picture(one)) < 1e-3
    assert float(three.figures["forward residual R"]) < 0.75 * float(fixed.figures["forward residual R"])
    assert three.figures["flux, deviation"] == pytest.approx(0.2, abs=0.05)
    assert "positions and flux of all patterns were fitted" in three.files["story"].read_text()
    moved = read_product(three.files["product"]).positions - scan.positions  # from another origin
    assert three.figures["positions moved, px"] == pytest.approx(np.sqrt(moved.var(axis=0).sum()), rel=1e-3)


def test_the_flux_of_held_out_patterns_is_fitted_to_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[TILE-009] Where photons are few."""
    scan = simulated(16, 1e3)
    monkeypatch.setattr("ptychopinn.tiled.worker.solve_middle", fixed_middle(None, ["flux"]))
    free = run(scan, tmp_path, 2, ["flux"])
    monkeypatch.setattr("ptychopinn.tiled.worker.solve_middle", fixed_middle(None, []))
    fixed = run(scan, tmp_path, 2, [])
    assert float(free.figures["forward residual R"]) < 0.97 * float(fixed.figures["forward residual R"])
