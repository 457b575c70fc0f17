"""A comparison whose candidates run out of memory. Requirements: specs/14-comparison.md.

A backend's tests have a fixture ``exhausted``: the name of a module beside them that registers three backends, all of
its framework. In ``tight`` the first batch of predictions does not fit, in ``full`` no batch does, in ``early`` memory
runs out before there is a batch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend_suite.fits import TINY_MODEL, TINY_TRAIN
from ptychopinn.comparison import Status, compare_run, comparison_settings, verify_comparison
from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan

SETTINGS = {
    "model": {name: value for name, value in TINY_MODEL.items() if name != "N"},
    "train": {**TINY_TRAIN, "nepochs": 8},  # of an object that is nearly flat, correlations tell rounding
    "infer": {"inference_batch_size": 16},
    "execution": {"accelerator": "cpu"},
    "solver": {"passes": 2},
}


@pytest.mark.slow
def test_candidates_whose_memory_runs_out(exhausted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[COMP-003] [HARD-020] A batch that does not fit is halved; one where none fits fails; the others stand."""
    plugin = tmp_path / "exhausted-1.0.dist-info"
    plugin.mkdir()
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: exhausted\nVersion: 1.0\n")
    (plugin / "entry_points.txt").write_text(f"[ptychopinn]\nexhausted = {exhausted}\n")
    monkeypatch.syspath_prepend(tmp_path)
    scans = []
    for seed in (1, 2):
        scans.append(tmp_path / f"{seed}.npz")
        write_scan(scans[-1], simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=seed)))
    candidates = ["full-pinn", "tight-pinn", "early-pinn", "epie"]
    settings = comparison_settings(**SETTINGS, comparison={"legs": candidates, "split_frc": False, "baseline": "epie"})
    result = compare_run(*scans, tmp_path / "out", settings)
    assert set(result.failed) == {"full-pinn", "early-pinn"}
    assert "Memory does not suffice to predict even one pattern" in result.failed["full-pinn"]
    assert "Memory ran out on" in result.failed["early-pinn"]
    status = {row.candidate: row.status for row in result.rows if row.metric == "nrmse" and row.scan == "test"}
    assert status == {
        "full-pinn": Status.FAILED,
        "tight-pinn": Status.OK,
        "early-pinn": Status.FAILED,
        "epie": Status.OK,
    }
    assert {row.message for row in result.rows if row.candidate == "full-pinn"} == {result.failed["full-pinn"]}
    assert "does not fit into memory; continuing with 8" in (tmp_path / "out/legs/tight-pinn/test/run.log").read_text()
    assert np.isfinite(read_product(tmp_path / "out/legs/tight-pinn/test/reconstruction.h5").object).all()
    assert "full-pinn failed: Memory does not suffice" in (tmp_path / "out/report.html").read_text()
    report = verify_comparison(tmp_path / "out")
    assert [check for check in report["checks"] if not check["passed"]] == []
