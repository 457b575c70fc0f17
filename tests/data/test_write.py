"""Writing, reading back, and the object of a reference."""

import json

import numpy as np
import pytest

from ptychopinn.data.checks import check_scan
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.diagnostics import Severity
from ptychopinn.data.io import read_object, read_scan, write_scan
from ptychopinn.errors import DataError, ResourceError, UsageError


def same(a: ScanDataset, b: ScanDataset) -> None:
    np.testing.assert_allclose(b.counts(slice(None)), a.counts(slice(None)), rtol=1e-6, atol=1e-6)
    for name in ("positions", "probe", "object_guess", "scan_index", "bad_pixels"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.patches_guess is None) == (b.patches_guess is None)
    if a.patches_guess is not None:
        np.testing.assert_array_equal(np.asarray(a.patches_guess), np.asarray(b.patches_guess))


@pytest.mark.parametrize("compress", [False, True])
def test_a_scan_written_is_the_scan_read(save, counts, tmp_path, compress):
    """[DATA-080]"""
    mask = np.zeros((32, 32), bool)
    mask[3, 4] = True
    truth = (np.arange(9 * 32 * 32).reshape(9, 32, 32) * (1 - 2j)).astype(np.complex64)
    meta = np.array('{"pixel_size_m": 1e-8, "mine": [1, 2]}')
    source = save(
        diffraction=None, diff3d=counts, bad_pixels=mask, Y=truth, _metadata=meta, scan_index=np.arange(9) // 5
    )
    data = read_scan(source)
    data = data.select(np.array([8, 1, 2, 5]))
    target = tmp_path / "written.npz"
    write_scan(target, data, compress=compress)
    again = read_scan(target)
    same(data, again)
    assert again.measurement is Measurement.AMPLITUDE
    assert again.counts_per_unit == 1
    assert again.metadata.pixel_size_m == 1e-8
    assert again.metadata.mine == [1, 2]
    assert again.metadata.nphotons == pytest.approx(data.counts(slice(None)).sum() / 4, rel=1e-6)
    with np.load(target, allow_pickle=False) as file:  # as anybody else reads it
        assert file["diffraction"].dtype == np.float32
        assert (file["diffraction"][:, mask] == 0).all()
        assert json.loads(file["_metadata"].item())["measurement"] == "amplitude"
    assert [p for p in check_scan(target) if p.severity is Severity.ERROR] == []
    first = target.read_bytes()
    write_scan(target, data, compress=compress)
    assert target.read_bytes() == first


def test_a_normalised_scan_keeps_its_dose(save, scan_arrays, tmp_path):
    """[DATA-080] [DATA-052]"""
    path = save(_metadata=None, diffraction=scan_arrays()["diffraction"] * np.float32(0.0123))
    data = read_scan(path, nphotons=3e5)
    write_scan(tmp_path / "b.npz", data)
    again = read_scan(tmp_path / "b.npz")
    same(data, again)
    assert again.metadata.nphotons == pytest.approx(3e5, rel=1e-4)


def test_a_failed_write_leaves_everything_as_it_was(tiny_scan, tmp_path, monkeypatch):
    """[DATA-081]"""
    data = read_scan(tiny_scan)
    before = tiny_scan.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(ResourceError, match="space"):
        write_scan(tiny_scan, data)
    assert tiny_scan.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.npz"]
    monkeypatch.undo()
    with pytest.raises(UsageError, match="does not exist"):
        write_scan(tmp_path / "nowhere" / "a.npz", data)
    with pytest.raises(DataError, match="without patterns"):
        write_scan(tmp_path / "a.npz", data.select(np.zeros(0, int)))
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.npz"]


def test_a_scan_can_be_written_over_its_own_file(tiny_scan):
    """[DATA-081] The mapping keeps the old bytes."""
    data = read_scan(tiny_scan)
    write_scan(tiny_scan, data)
    same(data, read_scan(tiny_scan))


def test_objects_of_references(tmp_path, tiny_scan, scan_arrays):
    """[DATA-083]"""
    obj = scan_arrays()["objectGuess"]
    path = tmp_path / "ref.npz"
    np.savez(path, object=obj[None].astype(complex), objectGuess=np.ones((4, 4), complex), probe=np.ones(3))
    np.testing.assert_array_equal(read_object(path), obj)
    assert read_object(path).dtype == np.complex64
    np.testing.assert_array_equal(read_object(tiny_scan), obj)
    for arrays, expected in [
        ({"probe": np.ones(3)}, "has no object: it has probe"),
        ({"objectGuess": np.ones((5, 6), complex)}, "1+0j everywhere"),
        ({"object": np.ones((2, 5, 6), complex)}, "one layer"),
        ({"object": np.array(None)}, "pickle"),
    ]:
        np.savez(path, **arrays)
        with pytest.raises(DataError) as caught:
            read_object(path)
        assert expected in str(caught.value)
