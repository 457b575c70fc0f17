"""What is mended or refused in every scan: pixels, patterns and positions that are no measurement."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.data.checks import check_scan
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.from_arrays import mend_scan
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import DataError
from ptychopinn.product import origin_of, product_of
from ptychopinn.simulate import simulate_scan


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return replace(simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=3, nphotons=1e5)), object_guess=None)


@pytest.fixture
def write(tmp_path, scan):
    """Writes counts and positions as a beamline would, and reads them again."""

    def make_scan(counts=None, positions=None, **others):
        positions = scan.positions if positions is None else positions
        path = tmp_path / "scan.npz"
        np.savez(
            path,
            diff3d=(scan.counts(slice(None)) if counts is None else counts).astype(np.uint32),
            xcoords=positions[:, 1],
            ycoords=positions[:, 0],
            probeGuess=scan.probe,
            **others,
        )
        return path

    return make_scan


def codes(data: ScanDataset) -> list[str]:
    return [problem.code for problem in data.findings]


def test_a_good_scan_is_not_touched(write, scan):
    """[DATA-120] [DATA-121] [DATA-123] [DATA-124]"""
    data = read_scan(write())
    assert data.findings == ()
    assert data.numbers is None
    assert not data.bad_pixels.any()


@pytest.mark.parametrize("kind", ["garbage", "white", "zinger"])
def test_outlier_patterns_are_left_out_and_do_not_set_the_dose(write, scan, kind):
    """[DATA-120] [DATA-132] One that is white all over is all marks."""
    counts = scan.counts(slice(None)).copy()
    if kind == "zinger":
        counts[7, 20, 11] = 5e7
    else:
        counts[7] = 65535 if kind == "white" else np.random.default_rng(0).integers(0, 2**31, (32, 32))
    data = read_scan(write(counts))
    what = {"white": "have bad values in over half of the pixels"}.get(kind, "hold over 20 times the median counts")
    assert codes(data) == (["DATA-035", "DATA-132"] if kind == "white" else ["DATA-120"])
    assert f"1 of 36 patterns {what}: 7" in data.findings[-1].message
    assert data.numbers.tolist() == [n for n in range(36) if n != 7]
    np.testing.assert_array_equal(data.positions, np.delete(scan.positions, 7, axis=0))
    assert data.metadata.nphotons == pytest.approx(scan.counts(slice(None)).sum() / 36, rel=0.05)
    assert not data.bad_pixels.any()


def test_empty_and_dim_patterns_are_left_out(write, scan):
    """[DATA-120]"""
    counts = scan.counts(slice(None)).copy()
    counts[::3] = 0
    counts[1] = np.rint(counts[1] * 0.002)
    data = read_scan(write(counts))
    assert codes(data) == ["DATA-120"]
    assert len(data) == 36 - 12 - 1


def test_few_photons_leave_empty_patterns_in(write, scan):
    """[DATA-120] where an empty pattern may be chance."""
    counts = np.random.default_rng(0).poisson(scan.counts(slice(None)) * 2e-5)
    assert (counts.sum(axis=(1, 2)) == 0).any()
    assert len(read_scan(write(counts))) == 36


@pytest.mark.parametrize("value", [3000.0, np.nan, -3000.0])
def test_a_lost_position_is_left_out(write, scan, value):
    """[DATA-121]"""
    positions = scan.positions.copy()
    positions[11, 1] = value
    data = read_scan(write(positions=positions))
    assert codes(data) == ["DATA-121"]
    assert "1 of 36 patterns have a position that is not finite or far from all others: 11" in data.findings[0].message
    assert np.ptp(data.positions, axis=0).max() < 60


def test_many_lost_positions_are_refused(write, scan):
    """[DATA-121] [DATA-060]"""
    positions = scan.positions.copy()
    positions[::4, 0] = np.nan
    with pytest.raises(DataError, match="too many to leave out"):
        read_scan(write(positions=positions))


@pytest.mark.parametrize(("metres", "name"), [(1.0, "metres"), (1e-6, "micrometres"), (1e-9, "nanometres")])
def test_positions_in_a_unit_of_length_are_refused_with_the_factor(write, scan, metres, name):
    """[DATA-122]"""
    pixel = 3e-8
    metadata = np.array(json.dumps({"schema_version": 1, "pixel_size_m": pixel}))
    path = write(positions=scan.positions * pixel / metres, _metadata=metadata)
    with pytest.raises(DataError) as caught:
        read_scan(path)
    assert name in caught.value.problem
    assert f"--scale-positions {metres / pixel:.6g}" in caught.value.remedy
    assert any(problem.code == "DATA-122" for problem in check_scan(path))


def test_positions_within_a_pixel_are_refused_without_a_pixel_size_too(write, scan):
    """[DATA-122]"""
    with pytest.raises(DataError, match="not in metres"):
        read_scan(write(positions=scan.positions * 1e-8))


def test_gaps_of_zeros_become_bad(write, scan):
    """[DATA-123] whole rows and columns, and a beam stop."""
    counts = scan.counts(slice(None)).copy()
    gap = np.zeros((32, 32), bool)
    gap[18:20], gap[:, 9] = True, True
    gap |= np.hypot(*(np.indices((32, 32)) - 16)) < 1.5
    counts[:, gap] = 0
    data = read_scan(write(counts))
    assert codes(data) == ["DATA-123"]
    np.testing.assert_array_equal(data.bad_pixels, gap)


def test_hot_pixels_become_bad_but_the_direct_beam_does_not(write, scan):
    """[DATA-124]"""
    counts = scan.counts(slice(None)).copy()
    counts[:, 4, 7] = 3_000_000
    data = read_scan(write(counts))
    assert codes(data) == ["DATA-124"]
    assert np.argwhere(data.bad_pixels).tolist() == [[4, 7]]
    counts = scan.counts(slice(None)).copy()
    counts[:, 16, 16] = 3_000_000
    assert not read_scan(write(counts)).bad_pixels.any()


def test_every_command_shows_the_same_findings(write, scan, caplog):
    """[DATA-125] validate, the log, and the scan that reports are made of."""
    positions = scan.positions.copy()
    positions[3] = np.nan
    path = write(positions=positions)
    with caplog.at_level("WARNING", logger="ptychopinn"):
        (finding,) = read_scan(path).findings
    assert finding.text in caplog.text
    assert finding in check_scan(path)
    assert finding.text.endswith("[DATA-121]")


def test_what_is_mended_is_written_as_it_is_used(write, scan, tmp_path):
    """[DATA-125] a file that was converted has nothing to mend."""
    counts = scan.counts(slice(None)).astype(np.float64)
    counts[5] = 65535
    counts[:, 12] = 2**32 - 1
    write_scan(tmp_path / "mended.npz", read_scan(write(counts)))
    data = read_scan(tmp_path / "mended.npz")
    assert (len(data), int(data.bad_pixels.sum()), data.findings) == (35, 32, ())


def test_a_product_knows_which_patterns_were_left_out(write, scan):
    """[DATA-126] so that it fits the whole scan, and the mended one."""
    counts = scan.counts(slice(None)).copy()
    counts[2] = 0
    data = read_scan(write(counts))
    product = product_of(data, np.ones((90, 90), np.complex64), data.probe, origin=(3, -4))
    assert product.indexes.tolist() == [n for n in range(36) if n != 2]
    assert origin_of(product, scan.positions) == (3, -4)
    assert origin_of(product, data.positions_by_number) == (3, -4)
    assert data.select(np.array([1, 2])).numbers.tolist() == [1, 3]


def test_arrays_are_mended_like_files(write, scan):
    """[DATA-127]"""
    counts = scan.counts(slice(None)).astype(np.float64)
    counts[:, 12] = 2**32 - 1
    counts[:, 4, 7] = 3_000_000
    counts[9] = 65535
    positions = scan.positions.copy()
    positions[20, 0] += 4000
    read = read_scan(write(counts, positions))
    made = mend_scan(replace(scan, patterns=counts, positions=positions, measurement=Measurement.COUNTS))
    assert codes(made) == codes(read) == ["DATA-035", "DATA-035", "DATA-132", "DATA-121", "DATA-124"]
    np.testing.assert_array_equal(made.bad_pixels, read.bad_pixels)
    np.testing.assert_array_equal(made.numbers, read.numbers)
    np.testing.assert_array_equal(made.counts(slice(None)), read.counts(slice(None)))
    with pytest.raises(DataError, match="not in metres"):
        mend_scan(replace(scan, positions=scan.positions * 1e-8))
    counts[:, :20] = np.nan
    with pytest.raises(DataError, match="values that are not finite"):
        mend_scan(replace(scan, patterns=counts))


def test_what_passed_is_not_checked_again(write, scan):
    """[DATA-129] Nor are parts of it; other patterns or positions are."""
    data = read_scan(write())
    part = data.select(np.arange(10))
    empty = replace(data, patterns=data.patterns[:0], positions=data.positions[:0], scan_index=data.scan_index[:0])
    for one in (scan, data, part, mend_scan(replace(data, patterns=data.patterns[:])), empty):
        assert mend_scan(one) is one
    for changed in ({"patterns": data.patterns[:]}, {"positions": data.positions + 1.0}):
        again = replace(data, **changed)
        assert again.checked is None
        assert mend_scan(again).checked is not None


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_the_end_of_a_detector_is_seen(write, scan, dtype):
    """[DATA-054] 12 bits in a wider dtype: pixels at the end are lower bounds. A caller's value counts more."""
    counts = scan.counts(slice(None)).astype(dtype)
    level = int(counts.max()) // 4
    path = write(np.minimum(counts, level))
    data = read_scan(path)
    assert codes(data) == ["DATA-054"]
    assert data.metadata.saturation_counts == level
    made = mend_scan(replace(scan, patterns=np.minimum(counts, level), measurement=Measurement.COUNTS))
    assert (codes(made), made.metadata.saturation_counts) == (["DATA-054"], level)
    stated = read_scan(path, saturation_counts=2 * level)
    assert codes(stated) == []
    assert stated.metadata.saturation_counts is None
    assert codes(read_scan(write(np.minimum(counts, int(counts.max()) - 1)))) == []  # one value is chance


def test_a_background_is_named(write, scan):
    """[DATA-128]"""
    counts = scan.counts(slice(None))
    drawn = np.random.default_rng(0).poisson(10, counts.shape)
    data = read_scan(write(counts + drawn))
    assert codes(data) == ["DATA-128"]
    assert "convert --background 9." in data.findings[0].remedy
    assert codes(mend_scan(replace(scan, patterns=counts + drawn, measurement=Measurement.COUNTS))) == ["DATA-128"]
