"""The files of tiles: specs/28-tiles.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.errors import DataError
from ptychopinn.geometry import Frame
from ptychopinn.simulate import simulate_scan
from ptychopinn.tiled.store import TileStore

CORES = [[[4, 6], [0, 0]], [[4, 5], [0, 6]]]
PLAN = {"frame": [[4, 11], [0, 0]], "cores": CORES, "frames": CORES}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("left_out", [0, 1])
def test_a_part_of_a_scan_is_that_of_the_whole(tmp_path: Path, compress: bool, left_out: int) -> None:
    """[TILE-004] Mapped or copied, with bad pixels, bad values of single patterns, and patterns that were left out."""
    made = simulate_scan(SimulationConfig(N=32, rows=30, cols=10, nphotons=1e4, seed=1))
    bad_pixels = np.zeros((32, 32), bool)
    bad_pixels[3, 4] = True
    bad = BadValues.of_pairs(np.array([0, 1, 7, 8]), np.array([5, 500, 501, 9]), len(made), (32, 32))
    write_scan(tmp_path / "scan.npz", replace(made, bad_pixels=bad_pixels, bad_values=bad), compress=compress)
    read = read_scan(tmp_path / "scan.npz")
    data = read.select(np.arange(left_out, len(read), 1 + left_out))
    folder = tmp_path / "tiles"
    folder.mkdir()
    TileStore.create(folder, tmp_path / "scan.npz", data, fit_scaling(data), PLAN)
    assert (folder / "patterns.bin").exists() == compress
    members = np.array([0, 3, 4, 99, 100])
    part, expected = TileStore(folder).scan(members), data.select(members)
    every = np.arange(5)
    np.testing.assert_array_equal(part.marked_counts(every), expected.marked_counts(every))
    assert (part.marked_counts(every) < 0).any()
    np.testing.assert_array_equal(part.positions, expected.positions)
    assert fit_scaling(part).mean_counts == fit_scaling(data).mean_counts


def test_borders_are_read_from_neighbours(tmp_path: Path) -> None:
    """[TILE-003] An array that is not there is refused."""
    data = simulate_scan(SimulationConfig(N=32, rows=3, cols=3, seed=1))
    TileStore.create(tmp_path, tmp_path, data, fit_scaling(data), PLAN)
    store = TileStore(tmp_path)
    whole = np.arange(44.0).reshape(4, 11)
    for number, core in enumerate(store.cores):
        store.job_folder("pass", number).mkdir(parents=True)
        store.put("pass", number, "object", whole[store.frame.overlap(core)[0]])
    np.testing.assert_array_equal(store.read("pass", "object", Frame((2, 5), (1, 3))), whole[1:3, 3:8])
    store.forget("pass", "object")
    with pytest.raises(DataError, match="cannot be read"):
        store.read("pass", "object", Frame((2, 5), (1, 3)))
