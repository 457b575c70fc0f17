"""Mutated scans: NPZ and HDF5 files."""

from __future__ import annotations

import io
import random
import stat
import struct
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hardening.kit import tensors
from hardening.kit.mutation import Mutation, mangle, mutate_json, pick, strange_path

from ptychopinn.config import SimulationConfig
from ptychopinn.data.checks import check_scan
from ptychopinn.data.convert import convert_scan
from ptychopinn.data.dataset import Measurement
from ptychopinn.data.diagnostics import Severity
from ptychopinn.data.io import read_object, read_scan, write_scan
from ptychopinn.data.readers.find import plugin_readers
from ptychopinn.errors import DataError
from ptychopinn.simulate import simulate_scan

SUFFIX = ".npz"
plugin_readers()  # installed plugins are imported once, before files are opened
_DTYPES = (
    *("<f2", ">f4", "<f8", ">f8", "i1", "u1", "<u2", ">u2", "<u4", ">i4", "<i8", ">i8", "c8", ">c16", "U5", "S3"),
    *("?", "M8[s]", "m8[s]", "V8", "longdouble", "clongdouble", "S0"),
)
_SHAPES = (
    *("(0,)", "(0, 32, 32)", "(1099511627776, 32, 32)", "(4611686018427387904, 4)", "(-1, 32, 32)", "()", "(9,)"),
    *("(0, 9223372036854775807)", "(9223372036854775807, 0, 9223372036854775807)", "(18446744073709551616,)"),
    *("(" + "1, " * 70 + ")", "(True, 32, 32)", "(9.0, 32, 32)", "('9', 32, 32)", "None", "[9, 32, 32]", "9"),
    *("(9, 32, 32", "(" * 300, "__import__('os').system('touch PWNED')", "(9, 32, 1024)", "(" + "0, " * 40 + ")"),
    *("(0, " + "9" * 300 + ")", "(" + "9" * 5000 + ",)"),
)
_NAMES = (
    *("../../PWNED.npy", "/tmp/PWNED.npy", "..\\PWNED.npy", "", ".npy", "a" * 60_000 + ".npy", "diffraction.npy/"),
    *("\u202egpj.npy", "C:\\PWNED.npy", "diffraction.npy", "Diffraction.npy", "xcoords", "\n.npy", "_metadata.json"),
)


class Evil:
    """Unpickled, it writes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch PWNED",)


@lru_cache(maxsize=2)
def _arrays(rows: int) -> dict[str, Any]:
    data = simulate_scan(SimulationConfig(N=32, rows=rows, cols=rows, seed=3))
    arrays = {
        "diffraction": np.sqrt(data.counts(slice(None))),
        "xcoords": data.positions[:, 1],
        "ycoords": data.positions[:, 0],
        "probeGuess": data.probe,
        "objectGuess": data.object_guess,
        "scan_index": data.scan_index,
        "bad_pixels": data.bad_pixels,
        "_metadata": np.array(
            data.metadata.model_copy(update={"measurement": Measurement.AMPLITUDE}).model_dump_json()
        ),
    }
    return arrays


def valid() -> dict[str, Any]:
    """The arrays of a small scan that is not mutated."""
    return {**_arrays(3)}


def _base(rng: random.Random) -> dict[str, Any]:
    return {**_arrays(17 if rng.random() < 0.1 else 3)}  # 17 x 17 patterns are mapped, 3 x 3 are read


@lru_cache(maxsize=3)
def _file(how: str) -> bytes:
    buffer = io.BytesIO()
    (np.savez if how == "stored" else np.savez_compressed)(buffer, **_arrays(3))
    return buffer.getvalue()


def _save(rng: random.Random, path: Path, arrays: dict[str, Any]) -> None:
    save: Callable[..., None] = pick(rng, (np.savez, np.savez_compressed))
    with path.open("wb") as stream:
        save(stream, **arrays)


def _npy(array: np.ndarray[Any, Any], **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **kwargs)
    return buffer.getvalue()


def _members(arrays: dict[str, Any]) -> list[tuple[zipfile.ZipInfo, bytes]]:
    return [(zipfile.ZipInfo(f"{key}.npy"), _npy(np.asarray(a))) for key, a in arrays.items() if a is not None]


def _write(path: Path, members: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # about names that come twice
        for info, content in members:
            archive.writestr(info, content)


def damage(rng: random.Random, path: Path) -> str:
    """Bytes of the whole file."""
    how, content = mangle(rng, _file(pick(rng, ("stored", "deflated"))))
    path.write_bytes(content)
    return how


def damage_member(rng: random.Random, path: Path) -> str:
    """Bytes of one array with its checksum put right, so that the array's own header is what is parsed."""
    members = _members(_base(rng))
    k = rng.randrange(len(members))
    how, content = mangle(rng, members[k][1][:2048])
    members[k] = (members[k][0], content + members[k][1][2048:])
    _write(path, members)
    return f"{how} {members[k][0].filename}"


def change_values(rng: random.Random, path: Path) -> str:
    """Not finite, negative and huge numbers."""
    arrays = _base(rng)
    key = pick(rng, ("diffraction", "xcoords", "ycoords", "probeGuess", "objectGuess", "scan_index"))
    value = pick(rng, (np.nan, np.inf, -np.inf, -1.0, 1e16, 1e38, 1e300, -1e300, 0.0, 1e-300, 1e6))
    array = np.array(arrays[key], np.complex128 if "Guess" in key else np.float64)
    flat = array.reshape(-1)
    where = slice(None) if rng.random() < 0.3 else [rng.randrange(flat.size) for _ in range(rng.choice((1, 9)))]
    flat[where] = value
    with np.errstate(all="ignore"):
        arrays[key] = array if rng.random() < 0.5 else array.astype(arrays[key].dtype)
    _save(rng, path, arrays)
    return f"{key} {value}"


def change_dtype(rng: random.Random, path: Path) -> str:
    """Another dtype or byte order."""
    arrays = _base(rng)
    key, dtype = pick(rng, [k for k in arrays if k != "_metadata"]), pick(rng, _DTYPES)
    array = arrays[key]
    with np.errstate(all="ignore"):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                arrays[key] = array.astype(dtype)
            except (TypeError, ValueError):
                arrays[key] = np.zeros(array.shape, dtype)
    _save(rng, path, arrays)
    return f"{key} {dtype}"


def change_shape(rng: random.Random, path: Path) -> str:
    """Swapped, missing and surplus axes, axes of length 0, other lengths."""
    arrays = _base(rng)
    key = pick(rng, list(arrays))
    array = np.asarray(arrays[key])
    how = pick(rng, ("transpose", "cut", "empty", "add", "flatten", "fortran", "scalar", "double", "drop"))
    if how == "transpose":
        array = np.moveaxis(array, 0, -1) if array.ndim else array
    elif how == "cut":
        array = array[: rng.randrange(len(array))] if array.ndim else array
    elif how == "empty":
        array = array[..., :0] if array.ndim else array[None][:0]
    elif how == "add":
        array = array[(None,) * rng.randrange(1, 30)]
    elif how == "flatten":
        array = array.reshape(-1)
    elif how == "fortran":
        array = np.asfortranarray(array)
    elif how == "scalar":
        array = array.reshape(-1)[0]
    elif how == "double":
        array = np.concatenate([array, array]) if array.ndim else array
    elif array.ndim > 1:
        array = array[..., 0]
    arrays[key] = array
    _save(rng, path, arrays)
    return f"{how} {key}"


def claim_shape(rng: random.Random, path: Path) -> str:
    """A header that claims what is not there, or is no header."""
    members = _members(_base(rng))
    k = rng.randrange(len(members))
    info, content = members[k]
    shape, version = pick(rng, _SHAPES), pick(rng, (b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"))
    descr = pick(rng, ("'<f4'", "'<f8'", "'<c8'", "'|O'", "[('a', '<f4')]", "'<U99999999'", "'V0'", "'<f3'", "None"))
    header = (
        f"{{'descr': {descr}, 'fortran_order': {pick(rng, ('False', 'True', '0'))}, 'shape': {shape}, }}\n".encode()
    )
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    body = b"" if "0" in shape and rng.random() < 0.7 else content[-4096:]
    members[k] = (info, b"\x93NUMPY" + version + size + header + body)
    _write(path, members)
    return f"{info.filename} {descr} {shape[:40]}"


def change_keys(rng: random.Random, path: Path) -> str:
    """Missing, surplus, doubled and renamed keys."""
    members = _members(_base(rng))
    k = rng.randrange(len(members))
    how, name = pick(rng, ("remove", "twice", "rename", "rename", "none", "legacy")), pick(rng, _NAMES)
    info, content = members[k]
    if how == "remove":
        del members[k]
    elif how == "twice":
        members.append((zipfile.ZipInfo(info.filename), content))
    elif how == "rename":
        members[k] = (zipfile.ZipInfo(name), content)
        members[k][0].filename = name
    elif how == "none":
        members = []
    else:
        for member, _ in members:
            member.filename = member.filename.replace("diffraction", "diff3d")
    _write(path, members)
    return f"{how} {info.filename} {name[:20]!r}"


def change_member(rng: random.Random, path: Path) -> str:
    """Links, encryption, other compressions, and sizes that are not true."""
    members = _members(_base(rng))
    k = rng.randrange(len(members))
    info = members[k][0]
    how = pick(rng, ("link", "bzip2", "lzma", "encrypted", "size", "method", "offset", "crc", "extra"))
    if how == "link":
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        members[k] = (info, b"/etc/passwd")
    elif how in ("bzip2", "lzma"):
        info.compress_type = zipfile.ZIP_BZIP2 if how == "bzip2" else zipfile.ZIP_LZMA
    elif how == "extra":
        info.extra = rng.randbytes(rng.randrange(40))
    _write(path, members)
    places = {"encrypted": (8, 2), "method": (10, 2), "crc": (16, 4), "size": (20, 8), "offset": (42, 4)}
    if how in places:
        _patch_directory(rng, path, k, *places[how])
    return f"{how} {info.filename}"


def _patch_directory(rng: random.Random, path: Path, member: int, offset: int, length: int) -> None:
    """Change one field of a member's entry in the central directory (APPNOTE 4.3.12)."""
    data = bytearray(path.read_bytes())
    at = -1
    for _ in range(member + 1):
        at = data.index(b"PK\x01\x02", at + 1)
    value = pick(rng, (b"\x01", b"\xff", b"\x7f", b"\x00")) * length
    data[at + offset : at + offset + length] = value if rng.random() < 0.7 else rng.randbytes(length)
    path.write_bytes(data)


def bomb(rng: random.Random, path: Path) -> str:
    """Members that unpack to far more than the file holds."""
    arrays = {key: np.asarray(array) for key, array in _base(rng).items()}
    how = pick(rng, ("zeros", "claim", "overlap", "sparse"))
    size = 1 << {"zeros": 27, "claim": 31, "overlap": 24, "sparse": 34}[how]
    header = io.BytesIO()
    shape = (size // 4096, 32, 32)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    method = zipfile.ZIP_STORED if how == "sparse" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        stream: Any
        with archive.open("diffraction.npy", "w", force_zip64=True) as stream:
            stream.write(header.getvalue())
            if how == "sparse":  # more than can be mapped: a hole in the file
                archive.fp.seek(size, 1)  # type: ignore[union-attr]
                stream._file_size += size
            else:
                block = bytes(1 << 20)
                for _ in range((size >> 20) if how != "claim" else 1):
                    stream.write(block)
        for key, array in arrays.items():
            if key != "diffraction":
                archive.writestr(f"{key}.npy", _npy(array))
        if how == "claim":
            archive.filelist[0].file_size = size + len(header.getvalue())
        elif how == "overlap":
            for entry in archive.filelist[1:]:
                entry.header_offset = archive.filelist[0].header_offset
    return f"{how} {size >> 20} MiB"


def change_metadata(rng: random.Random, path: Path) -> str:
    """Texts that are not the metadata they should be."""
    arrays = _base(rng)
    text = mutate_json(rng, str(arrays["_metadata"].item()))
    # A file can hold what no text of Python can.
    raw = text.encode("utf-8", "surrogatepass") if rng.random() < 0.3 else None
    arrays["_metadata"] = np.array(raw if raw is not None else text)
    _save(rng, path, arrays)
    return text[:60]


def hold_objects(rng: random.Random, path: Path) -> str:
    """Pickles, and records of several fields."""
    arrays = _base(rng)
    key = pick(rng, list(arrays))
    n = len(np.atleast_1d(arrays[key]))
    record = np.zeros(n, [("a", "<f4"), ("b", "<i8")])
    arrays[key] = record if rng.random() < 0.3 else np.array([Evil() for _ in range(n)], object)
    _save(rng, path, arrays)
    return key


@lru_cache(maxsize=1)
def _hdf5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for key, array in _arrays(3).items():
            file[key] = array.item() if key == "_metadata" else array
    return buffer.getvalue()


def damage_hdf5(rng: random.Random, path: Path) -> str:
    """Bytes of a scan in HDF5."""
    how, content = mangle(rng, _hdf5())
    path.write_bytes(content)
    return how


def restructure_hdf5(rng: random.Random, path: Path) -> str:
    """Structure of a scan in HDF5."""
    how, content = tensors.harm(rng, _hdf5())
    path.write_bytes(content)
    return how


MUTATIONS: tuple[Mutation, ...] = (
    *(damage_hdf5, damage_hdf5, restructure_hdf5, restructure_hdf5),
    *(damage, damage, damage_member, damage_member, change_values, change_values, change_dtype, change_shape),
    *(claim_shape, claim_shape, change_keys, change_member, bomb, change_metadata, hold_objects, strange_path),
)


def open_file(path: Path, target: Path) -> None:
    """Everything that reads scans; the readers must agree with the checker."""
    errors = [p for p in check_scan(path) if p.severity is Severity.ERROR]
    assert all(p.remedy for p in errors), f"an error without a remedy: {errors}"
    try:
        data = read_scan(path)
    except DataError:
        assert errors, "read_scan refuses what check_scan passes"
        raise
    damaged_bytes = all("bytes of this array" in p.message for p in errors)
    assert not errors or damaged_bytes, f"check_scan refuses what read_scan passes: {errors}"
    some = data.counts(slice(0, 4))
    assert np.isfinite(some).all(), "counts that are not finite"
    assert (some >= 0).all(), "counts below zero"
    if len(data) < 1000:
        write_scan(target / "copy.npz", data)
        convert_scan(path, target / "converted.npz", overwrite=True)
        assert read_scan(target / "copy.npz").patterns.shape == data.patterns.shape
    if data.object_guess is not None:
        read_object(path)
