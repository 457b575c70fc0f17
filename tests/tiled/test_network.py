"""Scans in tiles that start from a network: specs/28-tiles.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from tiled_workers import ARCHIVE, InThisProcess, difference, fixed_middle, picture

from ptychopinn.assembly import PhaseRule
from ptychopinn.config import SimulationConfig
from ptychopinn.config.infer import InferConfig
from ptychopinn.config.model import ModelConfig
from ptychopinn.config.run import AllSettings
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.monitor import Monitor
from ptychopinn.reconstructor import PatchBatch, Prediction
from ptychopinn.simulate import simulate_scan
from ptychopinn.tiled import tiled_run
from ptychopinn.typing import ComplexArray
from ptychopinn.workflows import RunResult

pytestmark = pytest.mark.slow
N = 32


class KnowsTheObject:
    """Draws the true patches, each with a phase of its own, which depends on where it is."""

    model = ModelConfig(N=N)

    def __init__(self, truth: ComplexArray) -> None:
        self._truth = truth

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor) -> Prediction:
        first = data.positions - (N - 1) / 2
        places = first[:, :, None, None] + np.indices((N, N))
        patches = map_coordinates(self._truth, np.moveaxis(places, 1, 0), mode="nearest")
        turned = patches * np.exp(1j * (7 * data.positions[:, :1] + 3 * data.positions[:, 1:]))[..., None]
        batch = PatchBatch(np.arange(len(data)), turned.astype(np.complex64))
        return Prediction(probe_in_counts(data, fit_scaling(data), follow_offset=True), N, iter([batch]))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sparse scan, for which a network that knows its object is there."""
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    scan = simulate_scan(SimulationConfig(N=N, rows=15, cols=8, step_px=8, nphotons=1e4, seed=3))
    write_scan(path, scan)
    assert scan.object_guess is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptychopinn.tiled.outputs.write_pictures", lambda *_: {})
        patch.setattr("ptychopinn.tiled.run.find_start", lambda *_: (ARCHIVE, None))
        ours = SimpleNamespace(manifest=SimpleNamespace(model=KnowsTheObject.model))
        patch.setattr("ptychopinn.tiled.run.read_bundle", lambda _: ours)
        patch.setattr("ptychopinn.tiled.network.load_reconstructor", lambda *_, **__: KnowsTheObject(scan.object_guess))
        yield path


def run(scan: Path, output: Path, tiles: int) -> RunResult:
    settings = AllSettings(tiles={"tiles": tiles, "passes": 2}, automatic={"may_free": []})
    return tiled_run(scan, output, settings, workers=InThisProcess())


def test_tiles_start_from_the_object_of_a_network(network: Path, tmp_path: Path) -> None:
    """[TILE-008] Which the middle of the scan prefers to a flat one. The picture is that of one tile to 1e-3."""
    one, three = (run(network, tmp_path / str(tiles), tiles) for tiles in (1, 3))
    assert "3 tiles then had 2 passes from the object of the network" in three.files["story"].read_text()
    assert difference(picture(three), picture(one)) < 1e-3
    assert float(one.figures["forward residual R"]) < 0.15, "noise leaves 0.127, a flat object 0.24"


def test_patches_whose_phases_are_not_solved_explain_less_than_a_flat_object(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[TILE-008] Then passes start from that one."""
    monkeypatch.setattr("ptychopinn.tiled.worker.solve_middle", fixed_middle(PhaseRule.OFF, []))
    assert "passes from a flat object" in run(network, tmp_path / "out", 2).files["story"].read_text()
