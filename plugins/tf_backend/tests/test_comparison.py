"""A comparison in which TensorFlow's memory runs out. Requirements: specs/14-comparison.md, specs/16-hardening.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ptychopinn.comparison import LegSettings, Status, compare_run
from ptychopinn.config import SimulationConfig
from ptychopinn.config.comparison import ComparisonConfig
from ptychopinn.data.npz import write_scan
from ptychopinn.simulate import simulate_scan


@pytest.mark.slow
def test_memory_that_runs_out_leaves_a_comparison_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[COMP-003] [HARD-020] Smaller batches do; where not even a pattern fits, the leg fails and the others stay."""
    info = tmp_path / "cramped-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cramped\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ptychopinn]\ncramped = cramped_tf\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(Path(__file__).parent), *sys.path])
    for seed, name in enumerate(("train.npz", "test.npz")):
        write_scan(tmp_path / name, simulate_scan(SimulationConfig(N=32, rows=8, cols=8, seed=seed)))
    settings = LegSettings(
        model={"n_filters_scale": 0.1, "iterations": 1, "group_size": 4},
        train={"nepochs": 1, "n_groups": 8, "probe_refinement": 0},
        solver={"passes": 2},
    )
    result = compare_run(
        tmp_path / "train.npz",
        tmp_path / "test.npz",
        tmp_path / "out",
        legs=["cramped-pinn", "exhausted-pinn", "epie"],
        settings=settings,
        config=ComparisonConfig(baseline="epie"),
    )
    assert set(result.failed) == {"exhausted-pinn"}
    assert "even one pattern" in result.failed["exhausted-pinn"]
    scored = {(row.leg, row.scan) for row in result.rows if row.status is Status.OK and row.metric == "nrmse"}
    assert scored == {(leg, scan) for leg in ("cramped-pinn", "epie") for scan in ("train", "test")}
    assert (tmp_path / "out" / "report.html").is_file()
