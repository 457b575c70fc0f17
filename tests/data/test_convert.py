"""Legacy files into canonical ones."""

import numpy as np
import pytest

from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.checks import check_scan
from ptychopinn.data.convert import convert_scan
from ptychopinn.data.dataset import Measurement
from ptychopinn.data.diagnostics import Severity
from ptychopinn.data.io import read_scan
from ptychopinn.errors import DataError, UsageError


@pytest.fixture
def legacy(tmp_path, scan_arrays, counts):
    """As older software wrote it: (N, N, n) counts with DC in the corner, double precision, no metadata."""
    path = tmp_path / "legacy.npz"
    moved = np.moveaxis(np.fft.ifftshift(counts, axes=(1, 2)), 0, 2)
    arrays = scan_arrays(diffraction=None, _metadata=None, diff3d=moved)
    arrays["probeGuess"] = arrays["probeGuess"][0].astype(complex)
    np.savez_compressed(path, **arrays)
    return path


def test_a_legacy_file_becomes_canonical(legacy, tmp_path, counts):
    """[DATA-082] [DATA-032] [DATA-037]"""
    target = tmp_path / "canonical.npz"
    convert_scan(legacy, target, ReadOptions(fftshift=True))
    data = read_scan(target)
    assert data.measurement is Measurement.AMPLITUDE
    np.testing.assert_allclose(data.counts(slice(None)), counts, rtol=1e-6)
    assert [p.severity for p in check_scan(target)] == [Severity.NOTE]


def test_options_act(legacy, tmp_path, counts):
    """[DATA-082] [DATA-050]"""
    target = tmp_path / "canonical.npz"
    convert_scan(legacy, target, ReadOptions(fftshift=True, nphotons=5e4), compress=True)
    assert read_scan(target).counts(slice(None)).sum() / 9 == pytest.approx(5e4, rel=1e-4)
    with np.load(legacy) as file:
        np.savez(tmp_path / "float.npz", **(dict(file) | {"diff3d": counts.astype(np.float32)}))
    convert_scan(tmp_path / "float.npz", tmp_path / "float-canonical.npz", ReadOptions(measurement="counts"))
    np.testing.assert_allclose(read_scan(tmp_path / "float-canonical.npz").counts(slice(None)), counts, rtol=1e-6)


def test_a_target_is_replaced_only_when_told(legacy, tiny_scan, tmp_path):
    """[DATA-082]"""
    before = tiny_scan.read_bytes()
    with pytest.raises(UsageError, match="exists already.*--overwrite"):
        convert_scan(legacy, tiny_scan, ReadOptions(fftshift=True))
    assert tiny_scan.read_bytes() == before
    convert_scan(legacy, tiny_scan, ReadOptions(fftshift=True), overwrite=True)
    assert tiny_scan.read_bytes() != before
    convert_scan(tiny_scan, tiny_scan, overwrite=True)
    assert len(read_scan(tiny_scan)) == 9


def test_a_refused_source_leaves_nothing(legacy, tiny_scan, tmp_path):
    """[DATA-082]"""
    before = tiny_scan.read_bytes()
    with pytest.raises(DataError, match="the corner"):
        convert_scan(legacy, tmp_path / "new.npz")
    with pytest.raises(DataError, match="the corner"):
        convert_scan(legacy, tiny_scan, overwrite=True)
    assert tiny_scan.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["legacy.npz", "tiny.npz"]


def test_the_measured_scan(shared_data, tmp_path):
    """[DATA-080] [DATA-082]"""
    target = tmp_path / "star.npz"
    source = convert_scan(shared_data / "siemens-star.npz", target)
    data = read_scan(target)
    index = np.arange(0, 516, 50)
    np.testing.assert_allclose(data.counts(index), source.counts(index), rtol=1e-6)
    assert data.metadata.nphotons == pytest.approx(source.metadata.nphotons, rel=1e-9)
    np.testing.assert_array_equal(data.positions, source.positions)
