"""Chunks of HDF5 files whose sizes are wrong. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import bz2
import zlib
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from ptychopinn.data.hdf5 import open_hdf5
from ptychopinn.errors import DataError
from ptychopinn.hdf5_chunks import check_chunks

SHAPE, CHUNKS = (20, 32, 32), (8, 16, 32)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gzip": {"compression": "gzip"},
    "gzip, shuffled, with checksums": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "checksums alone": {"fletcher32": True},
    "lzf": {"compression": "lzf"},
    "szip": {"compression": "szip"},
    "scale and offset": {"scaleoffset": 12},
    "LZ4": hdf5plugin.LZ4(),
    "bitshuffle alone": hdf5plugin.Bitshuffle(cname="none"),
    "bitshuffle": hdf5plugin.Bitshuffle(),
    "bitshuffle, Zstandard": hdf5plugin.Bitshuffle(cname="zstd"),
    "Blosc": hdf5plugin.Blosc(),
    "Zstandard": hdf5plugin.Zstd(),
    "Blosc2": hdf5plugin.Blosc2(),
    "bzip2": hdf5plugin.BZip2(),
}


def values() -> Any:
    return np.random.default_rng(1).poisson(3.0, SHAPE).astype(np.uint16)


def write(path: Path, kind: str, user_block: int = 0, chunks: tuple[int, ...] = CHUNKS) -> Path:
    with h5py.File(path, "w", userblock_size=user_block) as file:
        file.create_dataset("patterns", data=values(), chunks=chunks, **KINDS[kind])
    return path


@pytest.mark.parametrize("user_block", [0, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_good_chunks_are_good(tmp_path: Path, kind: str, user_block: int) -> None:
    """[HARD-043]"""
    if kind == "szip" and not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
        pytest.skip("this HDF5 library has no SZIP")
    path = write(tmp_path / "scan.h5", kind, user_block)
    with h5py.File(path) as file:
        check_chunks(file["patterns"])
    np.testing.assert_array_equal(open_hdf5(path).members["patterns"].load(), values())


# Of a plain chunk the file gives no size; the sizes of two filters are parameters of the dataset, not of a chunk.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"plain", "lzf", "scale and offset"}])
def test_chunks_that_unpack_to_less_are_refused(tmp_path: Path, kind: str) -> None:
    """[HARD-043] A chunk of a smaller dataset with the same filters stands in the place of one."""
    if kind == "szip" and not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
        pytest.skip("this HDF5 library has no SZIP")
    path = write(tmp_path / "scan.h5", kind)
    with h5py.File(write(tmp_path / "small.h5", kind, chunks=(8, 16, 16))) as small, h5py.File(path, "r+") as file:
        mask, short = small["patterns"].id.read_direct_chunk((0, 0, 0))
        file["patterns"].id.write_direct_chunk((0, 0, 0), short, mask)
    with pytest.raises(DataError, match="unpacks to 4\\d\\d\\d bytes instead of 8"):
        open_hdf5(path).members["patterns"].load()


def test_filters_that_a_chunk_lacks(tmp_path: Path) -> None:
    """[HARD-043] The file says of each chunk which filters it has."""
    path = write(tmp_path / "scan.h5", "gzip")
    with h5py.File(path, "r+") as file:
        file["patterns"].id.write_direct_chunk((0, 0, 0), values()[:8, :16].tobytes(), filter_mask=1)
        check_chunks(file["patterns"])
        file["patterns"].id.write_direct_chunk((8, 0, 0), zlib.compress(bytes(8192)), filter_mask=1)
        with pytest.raises(OSError, match="unpacks to"):
            check_chunks(file["patterns"])


@pytest.mark.parametrize(
    ("kind", "packed"),
    [("gzip", b"no deflate"), ("bzip2", b"no bzip2"), ("bzip2", bz2.compress(bytes(8192))[:-4])],
)
def test_damaged_streams(tmp_path: Path, kind: str, packed: bytes) -> None:
    """[HARD-043] The filter of bzip2 would wait for ever for the end of one that is cut."""
    path = write(tmp_path / "scan.h5", kind)
    with h5py.File(path, "r+") as file:
        file["patterns"].id.write_direct_chunk((0, 0, 0), packed)
    with pytest.raises(DataError, match="is damaged"):
        open_hdf5(path).members["patterns"].load()


@pytest.mark.parametrize("kind", [hdf5plugin.Zfp(reversible=True), hdf5plugin.SZ(absolute=0.1), hdf5plugin.SZ3()])
def test_filters_whose_chunks_cannot_be_checked_are_refused(tmp_path: Path, kind: Any) -> None:
    """[HARD-043] SZ ends the process where a chunk is damaged, ZFP gives what is in memory behind it."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("patterns", data=values().astype(np.float32), chunks=CHUNKS, **kind)
    with pytest.raises(DataError, match="h5repack"):
        open_hdf5(tmp_path / "scan.h5").members["patterns"].load()
