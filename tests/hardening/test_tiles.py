"""A scan in tiles on a Dask cluster that loses processes: specs/28-tiles.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dask_processes import DaskProcesses, dask_processes, when_begun

from ptychopinn.config import SimulationConfig
from ptychopinn.config.run import AllSettings
from ptychopinn.data.io import write_scan
from ptychopinn.errors import ResourceError
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan
from ptychopinn.tiled import tiled_run


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path) as processes:
        yield processes


def test_a_scan_in_tiles_loses_a_worker_and_its_scheduler(dask: DaskProcesses, tmp_path: Path, long: bool) -> None:
    """[TILE-005] [TILE-006] [JOB-010] Resumed with a new scheduler, it gives the picture of this machine."""
    if not long:
        pytest.skip("in the long form only")
    scan, out = tmp_path / "scan.npz", tmp_path / "out"
    write_scan(scan, simulate_scan(SimulationConfig(N=32, rows=14, cols=12, seed=3)))
    tiles, automatic = {"tiles": 2, "passes": 2}, {"may_free": []}
    by_dask = AllSettings(tiles={**tiles, "scheduler": dask.address}, automatic=automatic)
    scheduler, first = dask.begin_scheduler(), dask.begin_worker()
    when_begun(out / "tiles/start/tile-0000/task.json", lambda: (first.kill(), dask.begin_worker()))
    when_begun(out / "tiles/pass-001/tile-0000/result.json", scheduler.kill)
    with pytest.raises(ResourceError, match="is gone.*continue with --resume"):
        tiled_run(scan, out, by_dask)
    dask.begin_scheduler()
    dask.begin_worker()
    resumed = tiled_run(scan, out, by_dask, resume=True)
    here = tiled_run(scan, tmp_path / "here", AllSettings(tiles=tiles, automatic=automatic))
    one, other = (read_product(found.files["product"]).object for found in (resumed, here))
    np.testing.assert_array_equal(one, other)
