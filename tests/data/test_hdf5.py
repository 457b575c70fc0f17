"""Scans in HDF5, and large members: specs/01-data.md."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptychopinn.data.checks import check_scan
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_object, read_scan
from ptychopinn.data.lazy_rows import release_pages
from ptychopinn.errors import DataError, ResourceError

ScanArrays = Callable[..., dict[str, Any]]


def write(path: Path, arrays: dict[str, Any], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            if value.dtype.kind == "U":
                file[key] = str(value)
            else:
                file.create_dataset(key, data=value, **(options if value.ndim else {}))
    return path


def assert_same(found: ScanDataset, expected: ScanDataset) -> None:
    for name in ("positions", "probe", "object_guess", "scan_index", "bad_pixels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(found.counts(slice(None)), expected.counts(slice(None)))
    assert found.metadata == expected.metadata


@pytest.mark.parametrize("options", [{}, {"chunks": True}, {"compression": "gzip", "shuffle": True}])
def test_an_hdf5_file_is_read_as_an_npz_is(tmp_path: Path, scan_arrays: ScanArrays, options: dict[str, Any]) -> None:
    """[DATA-026]"""
    arrays = scan_arrays(n=400)
    np.savez(tmp_path / "scan.npz", **arrays)
    path = write(tmp_path / "scan.h5", arrays, **options)
    found = read_scan(path)
    assert_same(found, read_scan(tmp_path / "scan.npz"))
    assert isinstance(base_of(found.patterns), mmap.mmap) is (options == {})
    np.testing.assert_array_equal(read_object(path), arrays["objectGuess"])
    assert [p for p in check_scan(path) if p.severity == "error"] == []


def base_of(array: Any) -> Any:
    while isinstance(array, np.ndarray):
        array = array.base
    return array


def test_what_is_wrong_with_an_hdf5_file_is_told(tmp_path: Path, scan_arrays: ScanArrays) -> None:
    """[DATA-026] as of an NPZ; and links, virtual data and empty promises are refused."""
    path = write(tmp_path / "scan.h5", scan_arrays())
    with h5py.File(path, "a") as file:
        del file["xcoords"]
        file["ycoords_"] = file["ycoords"]
        del file["probeGuess"]
        file["probeGuess"] = h5py.ExternalLink("elsewhere.h5", "/probe")
        del file["objectGuess"]
        file.create_dataset("objectGuess", (40000, 40000), "c8", chunks=(100, 100))
        del file["scan_index"]
        layout = h5py.VirtualLayout((9,), "i8")
        layout[...] = h5py.VirtualSource("elsewhere.h5", "scan_index", (9,))
        file.create_virtual_dataset("scan_index", layout)
    told = "\n".join(str(problem) for problem in check_scan(path))
    for said in (
        "xcoords: The key is missing",
        "lies in the file 'elsewhere.h5', which is not there",
        "12800000000 bytes",
    ):
        assert said in told
    with pytest.raises(DataError, match="xcoords"):
        read_scan(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (h5py.Empty("f8"), "This dataset has no values"),
        (np.array([b"a", b"b"]), "one text is needed"),
    ],
)
def test_members_that_hold_no_array_are_told(
    tmp_path: Path, scan_arrays: ScanArrays, values: Any, message: str
) -> None:
    """[DATA-026] While a group beside the arrays does not matter."""
    path = write(tmp_path / "scan.h5", scan_arrays())
    with h5py.File(path, "a") as file:
        file.create_group("entry")["instrument"] = 1.0
    assert_same(read_scan(path), read_scan(write(tmp_path / "plain.h5", scan_arrays())))
    with h5py.File(path, "a") as file:
        del file["scan_index"]
        data = values if isinstance(values, h5py.Empty) else values.astype(h5py.string_dtype())
        file.create_dataset("scan_index", data=data)
    with pytest.raises(DataError, match=message):
        read_scan(path)


def test_a_large_compressed_member_waits_in_a_scratch_file(
    tmp_path: Path, scan_arrays: ScanArrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[DATA-020] and not in memory; the values are the same."""
    arrays = scan_arrays(n=400)
    np.savez_compressed(tmp_path / "scan.npz", **arrays)
    path = write(tmp_path / "scan.h5", arrays, compression="gzip")
    expected = read_scan(tmp_path / "scan.npz")
    monkeypatch.setattr("ptychopinn.data.scan_file._SCRATCH_BYTES", 1 << 20)
    for name in (path, tmp_path / "scan.npz"):
        found = read_scan(name)
        assert isinstance(base_of(found.patterns), mmap.mmap)
        assert_same(found, expected)
    monkeypatch.setattr("ptychopinn.spill.allocate", full)
    with pytest.raises(ResourceError, match=r"temporary file of 1,638,400 bytes.*No space left"):
        read_scan(path)


def full(*args: int) -> None:
    raise OSError(28, "No space left on device")


def test_pages_of_a_large_file_are_given_back(
    tmp_path: Path, scan_arrays: ScanArrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[DATA-020] What was read of a mapped file does not stay in this process."""
    np.savez(tmp_path / "scan.npz", **scan_arrays(n=400))
    scan = read_scan(tmp_path / "scan.npz")

    def mapped_kib() -> int:
        text = Path("/proc/self/smaps").read_text().partition(str(tmp_path / "scan.npz"))[2]
        return int(text.partition("Rss:")[2].split()[0])

    if not Path("/proc/self/smaps").is_file():
        pytest.skip("this system does not tell")
    before = scan.counts(slice(None))
    assert mapped_kib() > 1000
    monkeypatch.setattr("ptychopinn.data.lazy_rows._LARGE_BYTES", 1 << 20)
    np.testing.assert_array_equal(scan.counts(slice(None)), before)
    assert mapped_kib() == 0
    assert scan.select(np.array([5, 2])).counts(slice(None)).sum() == before[[5, 2]].sum()
    assert mapped_kib() == 0
    release_pages(before)  # memory of its own stays
    assert before.sum() > 0
