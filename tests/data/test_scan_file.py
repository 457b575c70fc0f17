"""Arrays inside a zip: found, mapped, and refused when they are not what they claim."""

import contextlib
import io
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychopinn import parallel
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.data.scan_file import open_npz
from ptychopinn.errors import DataError, ResourceError


def npy(array, version=None):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def is_mapped(array):
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False


def patch(path, old, new):
    content = path.read_bytes()
    assert content.count(old) >= 1
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize("dtype", ["<f4", ">u2", "<f2", "<u4", "<c16", "?", "<U5"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_come_back(tmp_path, dtype, order, compressed):
    rng = np.random.default_rng(0)
    array = np.asarray(rng.integers(0, 2, (3, 4, 5)).astype(dtype), order=order)
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, first=np.arange(3), a=array, text=np.array("x"))
    members = open_npz(path).members
    loaded = members["a"].load()
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)
    assert members["text"].load().item() == "x"


def test_large_stored_arrays_are_mapped_read_only(tmp_path):
    """[DATA-020]"""
    array = np.arange(300_000, dtype=np.float32).reshape(3, 100_000)
    for order in "CF":
        path = tmp_path / f"{order}.npz"
        np.savez(path, small=np.arange(4), a=np.asarray(array, order=order))
        members = open_npz(path).members
        loaded = members["a"].load()
        assert is_mapped(loaded)
        assert not loaded.flags.writeable
        np.testing.assert_array_equal(loaded, array)
        assert not is_mapped(members["small"].load())


def test_a_large_scan_needs_the_memory_of_a_block(tmp_path, scan_arrays, monkeypatch):
    """[DATA-020] [DATA-081] Reading, checking values, and writing 13 MB, on two cores."""
    monkeypatch.setattr(parallel, "granted_cores", lambda: 2)
    arrays = scan_arrays()
    n = 800
    path = tmp_path / "large.npz"
    which = np.arange(n) % 9
    changed = {key: arrays[key][which] for key in ("xcoords", "ycoords", "scan_index")}
    np.savez(
        path,
        **(
            arrays
            | changed
            | {"diffraction": np.tile(arrays["diffraction"], (89, 2, 2))[:n]}
            | {"probeGuess": np.ones((1, 64, 64), np.complex64), "bad_pixels": np.zeros((64, 64), bool)}
        ),
    )
    size = path.stat().st_size
    tracemalloc.start()
    try:
        data = read_scan(path, measurement="amplitude", fftshift=False)
        assert tracemalloc.get_traced_memory()[1] < 0.45 * size
        assert is_mapped(data.patterns)
        tracemalloc.reset_peak()
        write_scan(tmp_path / "again.npz", data.select(np.arange(n)[::-1].copy()))
        assert tracemalloc.get_traced_memory()[1] < 0.45 * size
    finally:
        tracemalloc.stop()


def test_files_that_are_no_npz_are_named(tmp_path, scan_arrays):
    """[DATA-021]"""
    whole = tmp_path / "whole.npz"
    np.savez(whole, **scan_arrays())
    content = whole.read_bytes()
    (tmp_path / "short.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("no zip at all")
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "scan.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for name, said in {
        "missing.npz": "is not there",
        ".": "is a folder",
        "short.npz": "cut short",
        "empty.npz": "is empty",
        "text.npz": "is not an NPZ",
        "single.npy": "single array",
        "scan.h5": "HDF5",
    }.items():
        with pytest.raises(DataError) as caught:
            read_scan(tmp_path / name)
        assert said in str(caught.value), name
        assert str(tmp_path) in str(caught.value)
        assert caught.value.remedy


def test_pickles_are_never_opened(tmp_path):
    """[DATA-022]"""
    path = tmp_path / "a.npz"
    np.savez(path, a=np.array([{"run": "me"}], dtype=object), b=np.zeros(2))
    file = open_npz(path)
    assert "pickle" in str(file.broken["a"])
    assert list(file.members) == ["b"]


def write_zip(path, members, **options):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **options) as archive:
        warnings.simplefilter("ignore")  # zipfile warns of names that are there twice
        for name, content in members:
            archive.writestr(name, content)


def test_a_key_named_twice_is_refused(tmp_path):
    """[DATA-023]"""
    for names in (("a.npy", "a.npy"), ("a", "a.npy")):
        write_zip(tmp_path / "a.npz", [(name, npy(np.zeros(2))) for name in names])
        with pytest.raises(DataError, match="'a' twice"):
            open_npz(tmp_path / "a.npz")


def test_members_that_are_not_what_they_claim_are_refused(tmp_path):
    """[DATA-023]"""
    path = tmp_path / "a.npz"
    plain = npy(np.zeros((2, 3)))
    for content, said in [
        (plain.replace(b"(2, 3)", b"(2, 4)"), "claims shape (2, 4)"),
        (plain.replace(b"(2, 3)", b"(-2,3)"), "claims the shape"),
        (plain[:-8], "48 bytes, but its member holds 40"),
        (b"no array", "not an array"),
        (plain.replace(b"(2, 3)", b"(2, 3("), "not an array"),
        (npy(np.zeros(2, "f8,i4")), "not a number"),
        (npy(np.zeros(2, "M8[s]")), "not a number"),
        (npy(np.zeros(2), version=(3, 0)), "version (3, 0)"),
    ]:
        write_zip(path, [("a.npy", content), ("b.npy", plain)])
        file = open_npz(path)
        assert said in str(file.broken["a"])
        assert file.broken["a"].remedy
        assert list(file.members) == ["b"]
    write_zip(path, [("a.npy", plain)], compression=zipfile.ZIP_BZIP2)
    assert "method 12" in str(open_npz(path).broken["a"])
    write_zip(path, [("readme.txt", b"text")])
    assert "not an array" in str(open_npz(path).broken["readme.txt"])


def test_an_encrypted_member_is_refused(tmp_path):
    """[DATA-023]"""
    path = tmp_path / "a.npz"
    write_zip(path, [("a.npy", npy(np.zeros(2)))])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in str(open_npz(path).broken["a"])


def test_a_member_beyond_the_file_is_refused(tmp_path):
    """[DATA-023] The local header's extra field is made longer than the file."""
    path = tmp_path / "a.npz"
    write_zip(path, [("a.npy", npy(np.zeros(2)))])
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, 28, 60_000)
    path.write_bytes(content)
    file = open_npz(path)
    assert not file.members
    assert "a" in file.broken


def test_a_stored_member_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    """[DATA-023] Header and directory agree with each other, and not with the file."""
    path = tmp_path / "a.npz"
    content = npy(np.zeros(1000)).replace(b"(1000,)", b"(9999,)")
    write_zip(path, [("a.npy", content)])
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 20
    size = struct.unpack_from("<I", content, at)[0] + 8 * 8999
    struct.pack_into("<II", content, at, size, size)
    path.write_bytes(content)
    said = str(open_npz(path).broken["a"])
    assert "beyond the end" in said or "Overlapped entries" in said  # the latter by Python's zipfile since 3.13


def forge(path, unpacked, packed=None):
    """A deflated member whose directory claims these sizes."""
    write_zip(path, [("a.npy", npy(np.zeros(1000)))], compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 20
    real_packed, _ = struct.unpack_from("<II", content, at)
    struct.pack_into("<II", content, at, packed or real_packed, unpacked)
    path.write_bytes(content)


def test_zip_bombs_are_not_unpacked(tmp_path):
    """[DATA-024]"""
    path = tmp_path / "a.npz"
    forge(path, 500_000)  # more than 1032:1
    assert "claims to unpack" in str(open_npz(path).broken["a"])
    forge(path, 2 << 30, packed=(2 << 30) // 300)  # more than 250:1 above 1 GiB
    assert "1 GiB" in str(open_npz(path).broken["a"])
    ones = tmp_path / "ones.npz"
    np.savez_compressed(ones, a=np.ones(2_000_000, np.complex64))  # what an exported objectGuess is
    assert open_npz(ones).members["a"].load().sum() == 2_000_000


def test_what_does_not_fit_into_memory_is_a_resource_error(tmp_path, monkeypatch):
    """[DATA-024]"""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(10))
    member = open_npz(path).members["a"]

    def full(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(ResourceError, match="uncompressed"):
        member.load()


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_bytes_are_refused(tmp_path, compressed):
    """[DATA-025]"""
    path = tmp_path / "a.npz"
    array = np.random.default_rng(0).random(1000)
    (np.savez_compressed if compressed else np.savez)(path, a=array)
    content = bytearray(path.read_bytes())
    content[4000] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        open_npz(path).members["a"].load()


def test_a_mapped_array_is_verified_when_asked(tmp_path):
    """[DATA-025]"""
    path = tmp_path / "a.npz"
    np.savez(path, a=np.ones(400_000))
    member = open_npz(path).members["a"]
    member.verify()
    content = bytearray(path.read_bytes())
    content[-5000] ^= 255
    path.write_bytes(content)
    assert member.load().shape == (400_000,)
    with pytest.raises(DataError, match="damaged"):
        member.verify()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_anywhere_is_an_array_or_a_clear_error(tmp_path_factory, data):
    """[DATA-021] [DATA-023] Whatever byte changes, nothing but our own errors comes out."""
    path = tmp_path_factory.getbasetemp() / "fuzz.npz"
    stream = io.BytesIO()
    save = np.savez_compressed if data.draw(st.booleans()) else np.savez
    save(stream, a=np.arange(6.0).reshape(2, 3), _metadata=np.array("{}"))
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) - 40, len(content)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(DataError, ResourceError):
            for member in open_npz(path).members.values():
                assert member.load().shape == member.shape
