"""Counts or amplitude, and the dose."""

import json
import logging

import numpy as np
import pytest

from ptychopinn.data.checks import check_scan
from ptychopinn.data.dataset import Measurement
from ptychopinn.data.diagnostics import Severity
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import DataError


@pytest.fixture
def save(tmp_path, scan_arrays):
    def write(**changes):
        path = tmp_path / "scan.npz"
        np.savez(path, **scan_arrays(**({"_metadata": None} | changes)))
        return path

    return write


@pytest.fixture
def counts(scan_arrays):
    return np.rint(scan_arrays()["diffraction"] ** 2)


def mean_counts(data):
    return data.counts(slice(None)).sum(dtype=np.float64) / len(data)


def test_integer_diff3d_is_counts(save, counts):
    """[DATA-040]"""
    assert read_scan(save(diffraction=None, diff3d=counts.astype(np.uint16))).measurement is Measurement.COUNTS


def test_diffraction_of_roots_is_amplitude(save):
    """[DATA-040]"""
    assert read_scan(save()).measurement is Measurement.AMPLITUDE


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_diff3d_is_ambiguous(save, counts, scale, dtype):
    """[DATA-040]"""
    path = save(diffraction=None, diff3d=(counts * scale).astype(dtype))
    with pytest.raises(DataError) as caught:
        read_scan(path)
    text = str(caught.value)
    for word in ("diff3d", "--measurement counts", np.dtype(dtype).name, "mean sum of squares"):
        assert word in text
    assert ("not whole numbers" in text) == (scale != 1)
    assert read_scan(path, measurement="counts").measurement is Measurement.COUNTS
    assert read_scan(path, measurement="amplitude").measurement is Measurement.AMPLITUDE


def test_diffraction_that_looks_like_counts_is_ambiguous(save, counts, scan_arrays):
    """[DATA-041]"""
    blurred = counts * 0.3 + 0.1  # neither whole numbers nor high: only the probe's energy tells
    for patterns, probe_factor, word in [
        (counts.astype(np.uint16), 1.0, "whole numbers"),
        (counts.astype(np.float32), 1.0, "whole numbers"),
        (counts * 100.5, 1.0, "would be"),
        (blurred, 0.55, "the probe's energy"),
    ]:
        probe = scan_arrays()["probeGuess"] * np.float32(probe_factor)
        path = save(diffraction=patterns, probeGuess=probe)
        with pytest.raises(DataError, match="--measurement") as caught:
            read_scan(path)
        assert "look like counts" in str(caught.value)
        assert word in str(caught.value)
        assert read_scan(path, measurement="counts").measurement is Measurement.COUNTS
    unscaled = scan_arrays()["probeGuess"] * np.float32(1e-3)
    assert read_scan(save(diffraction=blurred, probeGuess=unscaled)).measurement is Measurement.AMPLITUDE
    assert read_scan(save(diffraction=(counts > 3).astype(np.float32))).measurement is Measurement.AMPLITUDE


def test_metadata_that_contradict_an_integer_diff3d_are_ambiguous(save, counts):
    """[DATA-040]"""
    meta = np.array('{"measurement": "amplitude"}')
    path = save(diffraction=None, diff3d=counts.astype(np.uint16), _metadata=meta)
    with pytest.raises(DataError, match="uint16.*_metadata says amplitude.*--measurement"):
        read_scan(path)
    assert read_scan(path, measurement="counts").measurement is Measurement.COUNTS


def test_metadata_settle_it_and_the_caller_overrides(save, counts, caplog):
    """[DATA-040] [DATA-042]"""
    path = save(diffraction=counts, _metadata=np.array('{"measurement": "counts"}'))
    assert read_scan(path).measurement is Measurement.COUNTS
    with caplog.at_level(logging.WARNING):
        assert read_scan(path, measurement="amplitude").measurement is Measurement.AMPLITUDE
    assert "_metadata says counts; read as amplitude" in caplog.text


@pytest.mark.parametrize("measurement", ["counts", "amplitude"])
def test_the_callers_dose_scales_either_domain(save, counts, measurement):
    """[DATA-050] [DATA-053]"""
    patterns = counts * 0.37 if measurement == "counts" else np.sqrt(counts) * 0.37
    mask = np.zeros((32, 32), bool)
    mask[10:20, 16] = True
    data = read_scan(save(diffraction=patterns, bad_pixels=mask), measurement=measurement, nphotons=12345)
    assert mean_counts(data) == pytest.approx(12345, rel=1e-5)
    assert data.metadata.nphotons == pytest.approx(12345, rel=1e-5)


def test_counts_carry_their_dose(save, counts, caplog):
    """[DATA-051]"""
    for key, patterns in (("diff3d", counts.astype(int)), ("diffraction", np.sqrt(counts))):
        arrays = {"diffraction": None} | {key: patterns, "_metadata": np.array('{"nphotons": 1e9}')}
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            data = read_scan(save(**arrays))
        assert data.counts_per_unit == 1
        assert data.metadata.nphotons == pytest.approx(counts.sum() / 9, rel=1e-5)
        assert "the counts are believed" in caplog.text


def test_normalised_amplitudes_get_the_dose_of_the_file(save, counts):
    """[DATA-052]"""
    data = read_scan(save(diffraction=np.sqrt(counts) * 0.0123, _metadata=np.array('{"nphotons": 5e7}')))
    assert mean_counts(data) == pytest.approx(5e7, rel=1e-5)


def test_amplitudes_of_a_photon_a_pixel_are_photons(save, counts, caplog):
    """[DATA-052]"""
    with caplog.at_level(logging.INFO):
        data = read_scan(save(diffraction=np.sqrt(counts) * 1.01))
    assert data.counts_per_unit == 1
    assert "Squares taken as photons" in caplog.text


def test_normalised_amplitudes_without_a_dose_get_one_and_it_is_told(save, counts, caplog, tmp_path):
    """[DATA-052]"""
    path = save(diffraction=np.sqrt(counts) * 0.0123)
    with caplog.at_level(logging.WARNING):
        data = read_scan(path)
    assert mean_counts(data) == pytest.approx(1e6, rel=1e-5)
    assert "1e+06 photons a pattern are assumed" in caplog.text
    assert "nphotons" in caplog.text
    assert data.metadata.nphotons_assumed
    assert any(p.severity is Severity.WARNING and "assumed" in p.message for p in check_scan(path))
    write_scan(tmp_path / "again.npz", data)
    caplog.clear()
    again = read_scan(tmp_path / "again.npz")
    assert again.metadata.nphotons_assumed
    assert "assumed when the file was made" in caplog.text
    assert not read_scan(tmp_path / "again.npz", nphotons=1e5).metadata.nphotons_assumed


def saturated(counts, limit):
    return np.minimum(counts, limit)


def test_saturation_is_what_the_caller_says_then_the_file_then_the_integers(save, counts):
    """[DATA-054]"""
    limit = int(np.quantile(counts, 0.99))
    clipped = saturated(counts, limit).astype(np.uint16)
    text = np.array(json.dumps({"saturation_counts": limit}))
    plain = {"diffraction": None, "diff3d": clipped}
    assert read_scan(save(**plain)).metadata.saturation_counts is None
    assert read_scan(save(**plain), saturation_counts=limit).metadata.saturation_counts == limit
    assert read_scan(save(**plain), saturation_counts=limit + 1).metadata.saturation_counts is None
    assert read_scan(save(**plain, _metadata=text)).metadata.saturation_counts == limit
    lower = read_scan(save(**plain, _metadata=text), saturation_counts=limit - 1)
    assert lower.metadata.saturation_counts == limit - 1
    largest = np.where(clipped == limit, np.iinfo(np.uint16).max, clipped).astype(np.uint16)
    assert read_scan(save(diffraction=None, diff3d=largest)).metadata.saturation_counts == np.iinfo(np.uint16).max


def test_saturation_is_in_photons_and_is_written(save, counts, tmp_path):
    """[DATA-054] as the counts are, whatever the unit of the file."""
    limit = int(np.quantile(counts, 0.99))
    clipped = saturated(counts, limit)
    text = np.array(json.dumps({"saturation_counts": limit}))
    data = read_scan(save(diffraction=np.sqrt(clipped).astype(np.float32), _metadata=text), nphotons=1e4)
    assert data.metadata.saturation_counts == pytest.approx(data.counts(slice(None)).max(), rel=1e-5)
    write_scan(tmp_path / "written.npz", data)
    again = read_scan(tmp_path / "written.npz")
    assert again.metadata.saturation_counts == pytest.approx(data.metadata.saturation_counts, rel=1e-4)
