"""Positions and flux of scans in tiles: specs/28-tiles.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiled_workers import InThisProcess, difference, fixed_middle, picture

from ptychopinn.config import SimulationConfig
from ptychopinn.config.run import AllSettings
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.jobs import JobError
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan
from ptychopinn.tiled import tiled_run
from ptychopinn.workflows import RunResult

pytestmark = pytest.mark.slow
BOTH = ["positions", "flux"]


@pytest.fixture(autouse=True)
def _no_pictures() -> Iterator[None]:
    """They take longer than all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptychopinn.tiled.outputs.write_pictures", lambda *_: {})
        yield


def simulate_to(path: Path, rows: int, nphotons: float, off_px: float = 0.0) -> ScanDataset:
    """Write a scan with a beam that flickers, and positions that are off."""
    settings = SimulationConfig(N=32, rows=rows, cols=8, step_px=3, nphotons=nphotons, flux_deviation=0.2, seed=3)
    scan = simulate_scan(settings)
    off = np.random.default_rng(0).normal(0, off_px, scan.positions.shape)
    scan = replace(scan, positions=scan.positions + off)
    write_scan(path, scan)
    return scan


def run(scan: Path, output: Path, tiles: int, free: list[str], **more: Any) -> RunResult:
    settings = AllSettings(tiles={"tiles": tiles, "passes": 5}, automatic={"may_free": free})
    return tiled_run(scan, output, settings, model="none", **{"workers": InThisProcess(), **more})


def test_positions_and_flux_are_those_of_one_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[TILE-009] They are freed because held-out patterns of the middle are explained better."""
    path = tmp_path / "scan.npz"
    scan = simulate_to(path, 36, 1e6, off_px=0.7)
    three, fixed = run(path, tmp_path / "three", 3, BOTH), run(path, tmp_path / "fixed", 1, [])
    monkeypatch.setattr("ptychopinn.tiled.worker.solve_middle", fixed_middle(None, BOTH))
    one = run(path, tmp_path / "one", 1, BOTH)
    assert difference(picture(three), picture(one)) < 1e-3
    assert float(three.figures["forward residual R"]) < 0.75 * float(fixed.figures["forward residual R"])
    assert three.figures["flux, deviation"] == pytest.approx(0.2, abs=0.05)
    assert "positions and flux of all patterns were fitted" in three.files["story"].read_text()
    moved = read_product(three.files["product"]).positions - scan.positions  # from another origin
    assert three.figures["positions moved, px"] == pytest.approx(np.sqrt(moved.var(axis=0).sum()), rel=1e-3)


def test_a_resumed_reconstruction_fits_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[TILE-006] [TILE-009] After a job that died: no job is done again, and what was fitted goes on."""
    path, out = tmp_path / "scan.npz", tmp_path / "out"
    simulate_to(path, 12, 1e6, off_px=0.7)
    monkeypatch.setattr("ptychopinn.tiled.worker.solve_middle", fixed_middle(None, BOTH))
    quiet = run(path, tmp_path / "quiet", 2, BOTH)
    first, second = InThisProcess(lambda job: job.name == "pass-004, tile 2"), InThisProcess()
    with pytest.raises(JobError, match="was killed"):
        run(path, out, 2, BOTH, workers=first)
    resumed = run(path, out, 2, BOTH, workers=second, resume=True)
    assert not set(first.done) & set(second.done)
    expected, found = read_product(quiet.files["product"]), read_product(resumed.files["product"])
    np.testing.assert_array_equal(found.object, expected.object)
    np.testing.assert_array_equal(found.positions, expected.positions)
    assert resumed.figures == quiet.figures
    assert float(resumed.figures["positions moved, px"]) > 0.1


def test_the_flux_of_held_out_patterns_is_fitted_to_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[TILE-009] Where photons are few."""
    path = tmp_path / "scan.npz"
    simulate_to(path, 16, 1e3)
    monkeypatch.setattr("ptychopinn.tiled.worker.solve_middle", fixed_middle(None, ["flux"]))
    free = run(path, tmp_path / "free", 2, ["flux"])
    monkeypatch.setattr("ptychopinn.tiled.worker.solve_middle", fixed_middle(None, []))
    fixed = run(path, tmp_path / "fixed", 2, [])
    assert float(free.figures["forward residual R"]) < 0.97 * float(fixed.figures["forward residual R"])
