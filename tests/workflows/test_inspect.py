"""Inspect a scan file: specs/21-verdict.md."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.config.simulation import ObjectKind
from ptychopinn.data.io import write_scan
from ptychopinn.errors import UsageError
from ptychopinn.inspection import Agreement
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import inspect_run, run_settings, train_run


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan with x negated, and a lost position."""
    config = SimulationConfig(N=32, rows=9, cols=9, seed=4, object_kind=ObjectKind.CELLS)
    scan = replace(simulate_scan(config), object_guess=None)
    positions = scan.positions * [1, -1]
    positions[7] = 5e3
    path = tmp_path_factory.mktemp("scan") / "mirrored.npz"
    write_scan(path, replace(scan, positions=positions))
    return path


@pytest.mark.slow
def test_what_is_wrong_is_said_with_the_command_that_mends_it(mirrored: Path, tmp_path: Path) -> None:
    """[INSP-004]"""
    found = inspect_run(mirrored, tmp_path / "scan.png")
    assert found.geometry is not None
    assert found.geometry.agreement is Agreement.CHANGED
    assert "positions with x negated" in found.conclusion
    assert "Within the noise" in found.conclusion
    assert found.conclusion.endswith("ptychopinn convert SCAN -o NEW.npz --negate-x")
    assert [finding.code for finding in found.findings] == ["DATA-121"]
    assert found.figures["patterns"] == 80
    assert found.figures["best"] == "positions with x negated"
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError):
        inspect_run(mirrored, tmp_path / "missing" / "scan.png")


def test_too_few_patterns_are_shown_but_not_compared(scan_file: Path, tmp_path: Path) -> None:
    """[INSP-004]"""
    scan = simulate_scan(SimulationConfig(N=32, rows=2, cols=2))
    write_scan(tmp_path / "few.npz", scan)
    found = inspect_run(tmp_path / "few.npz", tmp_path / "few.png")
    assert found.geometry is None
    assert "nothing can be compared" in found.conclusion
    assert (tmp_path / "few.png").is_file()


@pytest.mark.slow
def test_a_training_warns_of_axes_that_fit_better(
    mirrored: Path, scan_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[INSP-005]"""
    settings = run_settings("numpy", train={"nepochs": 1})
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        train_run(scan_file, tmp_path / "good", settings)
    assert "--negate" not in caplog.text
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        train_run(mirrored, tmp_path / "run", settings)
    assert "convert SCAN -o NEW.npz --negate-x" in caplog.text
