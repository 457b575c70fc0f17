"""Check that each chunk of an HDF5 dataset unpacks to the size that it must have.

The HDF5 library (1.14) trusts the sizes that a file gives: where a chunk is shorter, it reads memory behind it, and may
crash. Filters write the unpacked size into each chunk or into their parameters, from which they also allocate; deflate
and bzip2 have to be unpacked. The chunks of other filters say nothing of it: some of them (SZ, ZFP, FCIDECOMP) read
behind a short chunk without a word, crash, or end the process, so they are not used.
"""

from __future__ import annotations

import bz2
import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from h5py import h5z
from h5py._objects import phil  # noqa: PLC2701 - its lock has no other name

from ptychopinn.errors import DataError
from ptychopinn.parallel import spread

_DEFLATE, _SHUFFLE, _FLETCHER32, _SZIP, _NBIT, _SCALE_OFFSET = range(1, 7)
_BZIP2, _LZF, _BLOSC, _LZ4, _BITSHUFFLE, _ZSTANDARD, _BLOSC2 = 307, 32000, 32001, 32004, 32008, 32015, 32026
_CHECKSUM_BYTES = 4  # of Fletcher's checksum, behind the values
_HEADER_BYTES = 48  # more than any header below
_ZSTANDARD_MAGIC = 0xFD2FB528
_Sizes = Callable[[bytes, tuple[int, ...]], int | None]  # of a chunk's first bytes and the filter's parameters


def check_chunks(dataset: Any) -> None:
    """Check the chunks of an open dataset; one that is contiguous or virtual has none.

    Raises
    ------
    OSError
        If a chunk unpacks to another size: the file is damaged.
    DataError
        If a filter does not let its chunks be checked.
    """
    if dataset.chunks is None:
        return
    size = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
    filters = _filters_of(dataset)
    chunks: list[Any] = []
    dataset.id.chunk_iter(chunks.append)
    stored = os.path.getsize(dataset.file.filename)

    def check(chunk: Any) -> None:
        if chunk.size > stored:
            raise OSError(f"The chunk at {chunk.chunk_offset} claims {chunk.size} bytes of a file of {stored}.")
        _Chunk(dataset, chunk, size).check(filters)

    if any(one.code in _UNPACKED for one in filters):
        spread(check, chunks)
    else:
        for chunk in chunks:
            check(chunk)


@dataclass(frozen=True)
class _Filter:
    """A filter of a dataset, in the order in which they were applied."""

    code: int
    parameters: tuple[int, ...]

    @property
    def keeps_size(self) -> bool:
        """Whether values have the same size after it."""
        return self.code == _SHUFFLE or (self.code == _BITSHUFFLE and (*self.parameters, *[0] * 5)[4] == 0)


@dataclass(frozen=True)
class _Chunk:
    """A chunk of an open dataset."""

    dataset: Any
    info: Any  # of h5py
    size: int  # of its values

    def check(self, filters: list[_Filter]) -> None:
        """Raise OSError if it does not unpack to its size."""
        used = [one for number, one in enumerate(filters) if not self.info.filter_mask >> number & 1]
        size = self.size
        while used and (used[0].keeps_size or used[0].code == _FLETCHER32):
            size += _CHECKSUM_BYTES if used.pop(0).code == _FLETCHER32 else 0
        if not used:
            self._compare(self.info.size, size)
            return
        packing, *after = used
        if any(one.code != _FLETCHER32 for one in after):
            raise OSError("A chunk was packed by several filters, which cannot be checked.")
        if (found := self._unpacked_size(packing, size, _CHECKSUM_BYTES * len(after))) is not None:
            self._compare(found, size)

    def _unpacked_size(self, packing: _Filter, size: int, tail: int) -> int | None:
        """The size to which a filter unpacks the chunk, of which ``tail`` bytes are not its own; None if unknown."""
        # Its place in the file is counted from elsewhere by older versions of the library.
        with phil:  # h5py takes its lock in every other function, but not in this one
            packed = self.dataset.id.read_direct_chunk(self.info.chunk_offset)[1]
        if (size_of := _SIZES.get(packing.code)) is not None:
            return size_of(packed[:_HEADER_BYTES], packing.parameters)
        if (unpack := _UNPACKED.get(packing.code)) is None:
            return None  # its filter is not installed, so that it cannot be read
        try:
            return len(unpack(packed[: len(packed) - tail], size + 1))
        except (zlib.error, OSError, EOFError) as error:
            raise OSError(f"A chunk at {self.info.chunk_offset} is damaged: {error}.") from error

    def _compare(self, found: int, expected: int) -> None:
        if found != expected:
            raise OSError(f"The chunk at {self.info.chunk_offset} unpacks to {found} bytes instead of {expected}.")


def _filters_of(dataset: Any) -> list[_Filter]:
    plist = dataset.id.get_create_plist()
    found = [plist.get_filter(number) for number in range(plist.get_nfilters())]
    for code, _, _, name in found:
        if code not in {_SHUFFLE, _FLETCHER32, *_SIZES, *_UNPACKED} and h5z.filter_avail(code):
            raise DataError(
                f"'{dataset.name:.200}' is packed by the filter {code} ({name.decode(errors='replace')!r:.60}), whose "
                "chunks do not say how much they hold: where one is damaged, it may give other values without a word, "
                "or end the program.",
                "Write the values without it, with a program that you trust: h5repack -f NONE FILE COPY.",
            )
    return [_Filter(int(code), tuple(int(value) for value in values)) for code, _, values, _ in found]


def _big_endian(header: bytes, _: tuple[int, ...]) -> int:
    return int.from_bytes(header[:8], "big")


def _of_szip(header: bytes, _: tuple[int, ...]) -> int:
    return int.from_bytes(header[:4], "little")


def _of_blosc(header: bytes, _: tuple[int, ...]) -> int:
    return int.from_bytes(header[4:8], "little")


def _of_blosc2(header: bytes, parameters: tuple[int, ...]) -> int:
    """The lesser of the sizes in a frame's header (Blosc2 Contiguous Frame Format) and in the parameters."""
    return min(int.from_bytes(header[30:38], "big"), parameters[3] if len(parameters) > 3 else 0)


def _unpack_deflate(packed: bytes, limit: int) -> bytes:
    return zlib.decompressobj().decompress(packed, limit)


def _unpack_bzip2(packed: bytes, limit: int) -> bytes:
    """The filter waits for ever for the end of a stream."""
    stream = bz2.BZ2Decompressor()
    values = stream.decompress(packed, limit)
    if not stream.eof and len(values) < limit:
        raise EOFError("it has no end")
    return values


def _of_lzf(_: bytes, parameters: tuple[int, ...]) -> int:
    return parameters[2] if len(parameters) > 2 else 0


def _of_counts(_: bytes, parameters: tuple[int, ...]) -> int:
    """Number of values times the size of one."""
    return parameters[2] * parameters[4] if len(parameters) > 4 else 0


def _of_zstandard(header: bytes, _: tuple[int, ...]) -> int | None:
    """The size in a frame's header (RFC 8878, 3.1.1.1); None if it has none."""
    if int.from_bytes(header[:4], "little") != _ZSTANDARD_MAGIC:
        return 0
    flags = header[4]
    single = flags >> 5 & 1
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[flags >> 6]
    if length == 0:
        return None
    return int.from_bytes(header[start : start + length], "little") + (256 if length == 2 else 0)


_SIZES: dict[int, _Sizes] = {
    _SZIP: _of_szip,
    _NBIT: _of_counts,
    _SCALE_OFFSET: _of_counts,
    _LZF: _of_lzf,
    _BLOSC: _of_blosc,
    _LZ4: _big_endian,
    _BITSHUFFLE: _big_endian,
    _ZSTANDARD: _of_zstandard,
    _BLOSC2: _of_blosc2,
}
_UNPACKED: dict[int, Callable[[bytes, int], bytes]] = {_DEFLATE: _unpack_deflate, _BZIP2: _unpack_bzip2}
