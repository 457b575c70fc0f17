"""Open NPZ files: check every array before memory is allocated, and memory-map it if possible.

An NPZ file is a zip of ``.npy`` members. NumPy copies every member into memory. Here an uncompressed member is
memory-mapped read-only, and a compressed one is unpacked once. Formats: the zip APPNOTE (local file header, 4.3.7) and
``numpy.lib.format``.
"""

from __future__ import annotations

import errno
import math
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np

from ptychopinn.data.diagnostics import Problem
from ptychopinn.errors import DataError, ResourceError
from ptychopinn.path_checks import why_unreadable
from ptychopinn.spill import read_to_memmap
from ptychopinn.typing import AnyArray, StrPath

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_CHUNK_BYTES = 1 << 20
MAP_BYTES = 1 << 20  # smaller members are read: a mapping costs a page fault and a file handle
_SCRATCH_BYTES = 1 << 28  # larger members are unpacked to a temporary file
_DEFLATE_LIMIT = 1032  # maximum compression ratio of deflate (zlib's technical notes)
BOMB_BYTES = 1 << 30
BOMB_RATIO = 250
_MAX_AXES = 32  # of older NumPys
_COPY_AGAIN = "Copy or export the file again."
_DAMAGE = (  # exceptions of zipfile, zlib and NumPy's header parser for damaged bytes
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    SyntaxError,
    RecursionError,
    EOFError,
    ValueError,
    NotImplementedError,
    OverflowError,
    OSError,
)


@dataclass(frozen=True)
class Member:
    """One array of an NPZ file, without its values."""

    path: Path
    key: str  # its name without ``.npy``
    # From the header, which fits the size of the member.
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool  # whether the array is in Fortran order
    mapped: bool  # whether `load` maps it instead of reading it
    entry: zipfile.ZipInfo = field(repr=False)
    header_bytes: int = field(repr=False)
    offset: int = field(repr=False)

    def __str__(self) -> str:
        return f"shape {self.shape}, {self.dtype}"

    def load(self) -> AnyArray:
        """The array: memory-mapped read-only, or unpacked once with its checksum verified, a large one to a file.

        Raises
        ------
        DataError
            If the bytes are damaged.
        ResourceError
            If neither memory nor disk suffice.
        """
        order: Literal["C", "F"] = "F" if self.fortran else "C"
        if self.mapped:
            try:
                array = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order)
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise DataError(f"This array ({self}) cannot be read: {error}.", _COPY_AGAIN) from error
                raise ResourceError(
                    f"{self.path}: {self.key} ({self}) needs more address space than this process may have.",
                    "Raise the limit (ulimit -v), or take a part of the scan.",
                ) from error
            return np.asarray(array)
        size = self.entry.file_size - self.header_bytes
        buffer = read_into_buffer(f"{self.path}: {self.key} ({self})", size, self._chunks())
        if self.dtype.itemsize == 0:
            return np.zeros(self.shape, self.dtype)
        return buffer.view(self.dtype).reshape(self.shape, order=order)

    def verify(self) -> None:
        """Verify the checksum, which `load` does not do for a mapped member.

        Raises
        ------
        DataError
            If the bytes do not match their checksum.
        """
        for _ in self._chunks():
            pass

    def _chunks(self) -> Iterator[bytes]:
        left = self.entry.file_size - self.header_bytes
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.entry) as stream:
                stream.read(self.header_bytes)
                while chunk := stream.read(_CHUNK_BYTES):  # the empty read verifies the checksum
                    left -= len(chunk)
                    yield chunk
        except _DAMAGE as error:
            raise DataError(f"The bytes of this array ({self}) are damaged: {error}.", _COPY_AGAIN) from error
        if left:
            raise DataError(f"The bytes of this array ({self}) end {left} bytes early.", _COPY_AGAIN)


def read_into_buffer(what: str, size: int, chunks: Iterable[bytes]) -> AnyArray:
    """Read ``size`` bytes into memory or, if they are many, into a mapped temporary file: (size,) uint8.

    ``what`` names them in errors.

    Raises
    ------
    ResourceError
        If neither memory nor disk suffice.
    """
    if size >= _SCRATCH_BYTES:
        return read_to_memmap(what, size, chunks)
    try:
        buffer = np.empty(size, np.uint8)
    except MemoryError as error:
        raise ResourceError(
            f"{what} needs {size / 2**30:.1f} GiB of memory, more than there is.",
            "Store it uncompressed (numpy.savez, ptychopinn convert), so that it can be memory-mapped.",
        ) from error
    end = 0
    for chunk in chunks:
        buffer[end : end + len(chunk)] = np.frombuffer(chunk, np.uint8)
        end += len(chunk)
    return buffer


class ArrayMember(Protocol):
    """One array of a file, without its values; see `Member`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """From the file."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """From the file."""
        ...

    @property
    def mapped(self) -> bool:
        """Whether `load` maps it instead of reading it."""
        ...

    def load(self) -> AnyArray:
        """The array."""
        ...

    def verify(self) -> None:
        """Check for damage that `load` does not notice."""
        ...


@dataclass(frozen=True)
class ScanFile:
    """The arrays of a file."""

    path: Path
    members: dict[str, ArrayMember]  # the arrays that can be loaded, by key
    broken: dict[str, DataError]  # errors of the other arrays, by key
    contents: str = ""  # what the file has, as text for messages, if that is more than the keys
    notes: tuple[str, ...] = ()  # what was found out or converted on opening it, as sentences
    warnings: tuple[str, ...] = ()  # what the user should look at, as sentences
    mended: tuple[Problem, ...] = ()  # what was mended before the arrays were put together

    @property
    def listed(self) -> str:
        """What the file has, as text for messages."""
        return self.contents or ", ".join(key[:40] for key in [*self.members][:30]) or "no arrays"


@dataclass(frozen=True)
class ArrayInMemory:
    """An array that is there already, with the interface of `Member`."""

    array: AnyArray
    mapped: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self.array.dtype

    def __str__(self) -> str:
        return f"shape {self.shape}, {self.dtype}"

    def load(self) -> AnyArray:
        """The array."""
        return self.array

    def verify(self) -> None:
        """Do nothing: what was made has no checksum."""


def open_npz(path: StrPath) -> ScanFile:
    """List the arrays of an NPZ file, reading only headers.

    Raises
    ------
    DataError
        If it is not there, not a zip, cut short, or names a key twice.
    """
    path = Path(path)
    if (why := why_unreadable(path)) is not None:
        raise DataError(f"{path} {why}; an NPZ file is needed.", "Check the name and the folder.")
    try:
        stream: IO[bytes] = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}.", "Check its permissions.") from error
    with stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                return _list(path, stream, archive)
        except _DAMAGE as error:
            stream.seek(0)
            raise DataError(*_not_a_zip(path, stream.read(8), error)) from error


def _not_a_zip(path: Path, start: bytes, error: Exception) -> tuple[str, str]:
    known = {
        b"PK": ("is a zip that was cut short or damaged", _COPY_AGAIN),
        b"\x93NUMPY": ("is a single array (.npy), not an NPZ of named ones", "Save it with numpy.savez."),
        b"\x89HDF": ("is an HDF5 file, not an NPZ", "Export the scan as NPZ, or name the NPZ file."),
    }
    for magic, (what, remedy) in known.items():
        if start.startswith(magic):
            return f"{path} {what} ({error}).", remedy
    what = "is not an NPZ (zip) file" if start else "is empty"
    return f"{path} {what}.", "Name an NPZ file with diffraction, xcoords, ycoords and probeGuess."


def _list(path: Path, stream: IO[bytes], archive: zipfile.ZipFile) -> ScanFile:
    members: dict[str, ArrayMember] = {}
    broken: dict[str, DataError] = {}
    for entry in archive.infolist():
        key = entry.filename.removesuffix(".npy")
        if key in members or key in broken:
            raise DataError(f"{path} holds the key '{key[:80]}' twice.", "Write the file again with each key once.")
        try:
            members[key] = _member(path, stream, archive, entry, key)
        except DataError as error:
            broken[key] = error
        except _DAMAGE as error:
            broken[key] = DataError(f"This member is damaged or not an array: {error!s:.300}.", _COPY_AGAIN)
    return ScanFile(path, members, broken)


def _member(path: Path, stream: IO[bytes], archive: zipfile.ZipFile, entry: zipfile.ZipInfo, key: str) -> Member:
    if not entry.filename.endswith(".npy"):
        raise DataError("This member is not an array (.npy).", "Write the file with numpy.savez.")
    if entry.flag_bits & 1:
        raise DataError("This member is encrypted.", "Write the file without a password.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"This member is compressed by method {entry.compress_type}; stored and deflated ones are read.",
            "Write the file with numpy.savez or numpy.savez_compressed.",
        )
    _refuse_implausible_size(entry)
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(member)
        else:
            raise DataError(f"This member has the .npy version {version}.", "Save plain numeric arrays.")
        header_bytes = member.tell()
    if dtype.hasobject:
        raise DataError(
            f"This array (shape {shape}) has dtype object: Python objects, which only a pickle can hold. Pickles can "
            "run anything and are never opened.",
            "Save it as a numeric array, or text as numpy.array(text).",
        )
    if dtype.kind not in "biufcUS":
        raise DataError(f"This array has the dtype {dtype}, which is not a number or text.", "Save numeric arrays.")
    whole = all(type(n) is int and n >= 0 for n in shape)
    # A shape with an axis of length 0 is empty; NumPy refuses it if it would be too large otherwise.
    if not whole or len(shape) > _MAX_AXES or math.prod(n for n in shape if n) * max(dtype.itemsize, 1) > sys.maxsize:
        raise DataError(f"This array claims the shape {shape!s:.200}.", _COPY_AGAIN)
    needed, held = math.prod(shape) * dtype.itemsize, entry.file_size - header_bytes
    if needed != held:
        raise DataError(
            f"This array claims shape {shape!s:.200} and dtype {dtype}, {needed} bytes, but its member holds {held}.",
            _COPY_AGAIN,
        )
    offset = _data_offset(stream, entry) + header_bytes
    mapped = entry.compress_type == zipfile.ZIP_STORED and needed >= MAP_BYTES
    return Member(path, key, tuple(shape), dtype, bool(fortran), mapped, entry, header_bytes, offset)


def _refuse_implausible_size(entry: zipfile.ZipInfo) -> None:
    """Refuse sizes beyond the ratio of deflate, and those too large and too compressed for a measurement."""
    size, packed = entry.file_size, entry.compress_size
    if entry.compress_type == zipfile.ZIP_STORED:
        if size != packed:
            raise DataError(f"This member is stored, yet claims {packed} and {size} bytes.", _COPY_AGAIN)
    elif size > _DEFLATE_LIMIT * packed + _DEFLATE_LIMIT or (size > BOMB_BYTES and size > BOMB_RATIO * packed):
        raise DataError(
            f"This member claims to unpack from {packed} to {size} bytes, "
            f"more than {BOMB_RATIO}:1 above {BOMB_BYTES >> 30} GiB; it is not unpacked.",
            "If you trust it, store it uncompressed (numpy.savez).",
        )


def _data_offset(stream: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Offset of the bytes of a member, which were checked to lie inside the file."""
    stream.seek(entry.header_offset)
    fields = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    offset = entry.header_offset + _LOCAL_HEADER.size + int(fields[9]) + int(fields[10])
    if offset + entry.compress_size > stream.seek(0, 2):
        raise DataError("This member reaches beyond the end of the file.", _COPY_AGAIN)
    return offset
