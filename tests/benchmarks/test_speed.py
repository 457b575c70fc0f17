"""The benchmark of speed measures what it says; tiny."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import speed
from tiled_scans import field_of, tiled_positions, write_hdf5, write_npz

from ptychopinn.data.io import read_scan


@pytest.mark.slow
def test_a_quick_run_measures_everything_but_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = "ceilings,ePIE pass,grouping,stitching"
    arguments = ["--quick", "--parts", parts, "--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")]
    assert speed.main(arguments) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert [r["what"] for r in found["results"]] == [*speed.CEILINGS, "ePIE pass", *speed.CORE]
    for result in found["results"]:
        assert result["value"] > 0
        assert 0 < result["peak_anonymous_mib"] <= result["peak_resident_mib"]
    stages = found["results"][-1]["stages_us_a_pattern"]
    assert set(stages) == {"predict", "synchronise", "stitch", "slow phase", "judge"}
    assert (tmp_path / "a.md").read_text() == capsys.readouterr().out


def test_the_table_gives_rates_as_shares_of_an_epie_pass() -> None:
    peaks = {"peak_anonymous_mib": 10.0, "peak_resident_mib": 20.0}
    rate = {"unit": "patterns/s", "size": 64, **peaks}
    lines = speed.table(
        [
            {"what": "memory copy", "value": 17.25, "unit": "GB/s", **peaks},
            {"what": "ePIE pass", "value": 8000.0, "cpu_us": 200.0, **rate},
            {
                "what": "inference",
                "value": 2000.0,
                "cpu_us": 900.0,
                "patterns": 20000,
                "backend": "torch",
                "device": "cpu",
                **rate,
            },
            {"what": "scan", "size": 256, "patterns": 200000, "left_out": "its file takes 24 GiB, 30 are free"},
            {"what": "forward", "size": 64, "backend": "tf", "error": "no such thing"},
        ]
    ).splitlines()
    assert lines[2:] == [
        "| memory copy | 17.25 GB/s |  |  |  | 10 / 20 |",
        "| ePIE pass, N = 64 | 8,000 patterns/s | 1.00 | 200 | 1.00 | 10 / 20 |",
        "| inference, torch, cpu, N = 64, 20000 patterns | 2,000 patterns/s | 0.25 | 900 | 4.50 | 10 / 20 |",
        "| scan, N = 256, 200000 patterns | its file takes 24 GiB, 30 are free | | | | |",
        "| forward, tf, N = 64 | no such thing | | | | |",
    ]


@pytest.mark.parametrize("compress", [False, True])
def test_tiled_scans_are_scans(tmp_path: Path, compress: bool) -> None:
    """Fields meet without a gap and without meeting twice; both kinds of file are the same scan."""
    field = field_of(32, 25)
    write_npz(tmp_path / "a.npz", field, 110, compress=compress)
    write_hdf5(tmp_path / "a.h5", field, 110, compress=compress)
    one, other = read_scan(tmp_path / "a.npz"), read_scan(tmp_path / "a.h5")
    assert len(one) == 110
    np.testing.assert_array_equal(one.counts(slice(None)), other.counts(slice(None)))
    np.testing.assert_array_equal(one.counts(slice(100, 110)), field.counts(slice(0, 10)))
    np.testing.assert_array_equal(one.positions, other.positions)
    positions = tiled_positions(field, 100)
    distance = np.abs(positions[:, None] - positions).max(axis=2) + 1e9 * np.eye(100)
    step = np.ptp(field.positions, axis=0).max() / 4
    assert 0.2 * step < distance.min()
    assert distance.min(axis=1).max() < 1.7 * step


def test_what_is_not_measured_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.main(["--parts", "training,lunch"])
    assert "lunch" in capsys.readouterr().err
