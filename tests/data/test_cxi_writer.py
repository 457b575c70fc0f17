"""Scans written as CXI: specs/24-formats.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scan_formats

from ptychopinn.config import SimulationConfig
from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.data.convert import convert_scan
from ptychopinn.data.cxi_writer import EXTRAS, write_cxi_scan
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.errors import DataError
from ptychopinn.simulate import simulate_scan


def scan(*, whole: bool, pixel: float | None) -> ScanDataset:
    found = simulate_scan(SimulationConfig(N=32, rows=4, cols=4, seed=2))
    counts = found.counts(slice(None))
    bad = np.zeros((32, 32), bool)
    bad[1, 2] = True
    metadata = found.metadata.model_copy(
        update={"pixel_size_m": pixel, "probe_energy_eV": 8000.0, "detector_distance_m": 2.0, "sample": "gold"}
    )
    return replace(
        found,
        patterns=np.rint(counts).astype(np.uint16) if whole else counts / np.float32(3),
        measurement=Measurement.COUNTS,
        counts_per_unit=1.0,
        bad_pixels=bad,
        scan_index=np.arange(len(found)) // 7,
        metadata=metadata,
    )


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("whole", "pixel"), [(True, 1e-8 / 3), (False, 1e-8 / 3), (True, None)])
def test_a_round_trip_is_exact(tmp_path: Path, whole: bool, pixel: float | None, compress: bool) -> None:
    """[DATA-225] Bit by bit: counts, positions, probe, mask, scans, object and metadata."""
    given = scan(whole=whole, pixel=pixel)
    write_cxi_scan(tmp_path / "scan.cxi", given, compress=compress)
    found = read_scan(tmp_path / "scan.cxi")
    for name in ("positions", "probe", "scan_index", "bad_pixels", "object_guess"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name), err_msg=name)
    np.testing.assert_array_equal(found.counts(slice(None)), given.counts(slice(None)))
    assert found.patterns.dtype == given.patterns.dtype
    said, expected = (s.metadata.model_dump(exclude={"nphotons", "measurement"}) for s in (found, given))
    assert said == expected


def test_other_programs_find_metres(tmp_path: Path) -> None:
    """[DATA-225] Without our group the file is a CXI file as any other."""
    given = scan(whole=True, pixel=2e-8)
    write_cxi_scan(tmp_path / "scan.cxi", given)
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        del file[EXTRAS]
    found = read_scan(tmp_path / "scan.cxi")
    np.testing.assert_allclose(found.positions, given.positions, atol=1e-6)
    assert found.metadata.pixel_size_m == pytest.approx(2e-8)
    assert found.metadata.probe_energy_eV == pytest.approx(8000)


def test_convert_writes_cxi_by_the_name_of_the_target(tmp_path: Path) -> None:
    """[DATA-225] And back."""
    path = scan_formats.training(tmp_path / "training.h5", scan_formats.example())
    given = convert_scan(path, tmp_path / "scan.cxi")
    convert_scan(tmp_path / "scan.cxi", tmp_path / "scan.npz")
    found = read_scan(tmp_path / "scan.npz")
    np.testing.assert_array_equal(found.positions, given.positions)
    np.testing.assert_allclose(found.counts(slice(None)), given.counts(slice(None)), rtol=1e-6)


def test_convert_says_that_positions_in_metres_are_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[DATA-225] And what gives them; with a pixel size nothing is said."""
    write_cxi_scan(tmp_path / "scan.cxi", scan(whole=True, pixel=None))
    convert_scan(tmp_path / "scan.cxi", tmp_path / "again.cxi")
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    assert "--pixel-size" in said[0]
    caplog.clear()
    convert_scan(tmp_path / "scan.cxi", tmp_path / "known.cxi", conversion=ConversionOptions(pixel_size=2e-8))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_group_of_ours_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """[DATA-225] [HARD-001]"""
    write_cxi_scan(tmp_path / "scan.cxi", scan(whole=True, pixel=None))
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        del file[f"{EXTRAS}/scan_index"]
        file[f"{EXTRAS}/scan_index"] = np.zeros(3)
    with pytest.raises(DataError, match="scan index"):
        read_scan(tmp_path / "scan.cxi")
