"""Arrays inside an HDF5 file, as `ptychopinn.data.scan_file` has those of an NPZ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychopinn.data.scan_file import BOMB_BYTES, BOMB_RATIO, MAP_BYTES, ScanFile, read_into_buffer
from ptychopinn.errors import DataError
from ptychopinn.path_checks import why_unreadable
from ptychopinn.typing import AnyArray, StrPath

MAGIC = b"\x89HDF\r\n\x1a\n"
_BLOCK_BYTES = 1 << 24
_MAX_TEXT_BYTES = 1 << 20
_COPY_AGAIN = "Copy or write the file again."
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError)  # as h5py tells it


@dataclass(frozen=True)
class H5Member:
    """One dataset, not read yet.

    Attributes
    ----------
    key, shape, dtype:
        As the file says; text has the dtype ``U``.
    mapped:
        True if `load` maps it instead of reading it: stored in one piece, unpacked.
    offset:
        Where its bytes begin in the file, if they are mapped.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    mapped: bool
    offset: int
    fortran: bool = False

    def __str__(self) -> str:
        return f"shape {self.shape}, {self.dtype}"

    def load(self) -> AnyArray:
        """The array: mapped and read-only, or read once, a large one into a scratch file.

        Raises
        ------
        DataError
            If the bytes are damaged, or packed by a filter that is not installed.
        ResourceError
            If neither memory nor disk suffice.
        """
        try:
            if self.mapped:
                return np.asarray(np.memmap(self.path, self.dtype, "r", self.offset, self.shape))
            if self.dtype.kind == "U":
                with h5py.File(self.path, "r") as file:
                    return np.array(file[self.key].asstr()[()])
            size = math.prod(self.shape) * self.dtype.itemsize
            return (
                read_into_buffer(f"{self.path}: {self.key} ({self})", size, self._blocks())
                .view(self.dtype)
                .reshape(self.shape)
            )
        except _DAMAGE as error:
            raise DataError(f"This dataset ({self}) cannot be read: {error}.", _COPY_AGAIN) from error

    def verify(self) -> None:
        """What is mapped has no checksum in HDF5."""

    def _blocks(self) -> Iterator[bytes]:
        with h5py.File(self.path, "r") as file:
            dataset = file[self.key]
            if not self.shape:
                yield np.asarray(dataset[()]).tobytes()
                return
            row = math.prod(self.shape[1:]) * self.dtype.itemsize
            step = max(_BLOCK_BYTES // max(row, 1), 1)
            for low in range(0, self.shape[0], step):
                yield np.ascontiguousarray(dataset[low : low + step]).tobytes()


def is_hdf5(path: StrPath) -> bool:
    """Whether a file begins as HDF5 does."""
    if why_unreadable(path) is not None:
        return False
    try:
        with Path(path).open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def open_hdf5(path: StrPath) -> ScanFile:
    """List the datasets at the root of an HDF5 file; reads no values.

    Safe on a stranger's file: links to elsewhere, virtual datasets and data stored outside the file are refused, and
    so are datasets that claim far more than is stored.

    Parameters
    ----------
    path:
        The file.

    Raises
    ------
    DataError
        If it is damaged or open for writing.
    """
    path = Path(path)
    found = ScanFile(path, {}, {})
    try:
        with h5py.File(path, "r") as file:
            for key in file:
                try:
                    member = _member(path, file, key)
                    if member is not None:
                        found.members[key] = member
                except DataError as error:
                    found.broken[key] = error
                except _DAMAGE as error:
                    found.broken[key] = DataError(f"This dataset is damaged: {error}.", _COPY_AGAIN)
    except _DAMAGE as error:
        raise DataError(
            f"{path} is an HDF5 file that cannot be read: {error}.",
            "Close it where it is being written, or copy it again.",
        ) from error
    return found


def _member(path: Path, file: Any, key: str) -> H5Member | None:
    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise DataError("This is a link to elsewhere.", "Copy the data into the file itself.")
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset):
        return None
    if dataset.is_virtual or dataset.external:
        raise DataError("Its data lie outside the file.", "Copy them into the file itself.")
    if dataset.shape is None:
        raise DataError("This dataset has no values.", "Write the values into the file.")
    shape = tuple(int(n) for n in dataset.shape)
    if h5py.check_string_dtype(dataset.dtype) is not None:
        if math.prod(shape) != 1 or dataset.dtype.itemsize > _MAX_TEXT_BYTES:
            raise DataError(f"This dataset holds texts of shape {shape}; one text is needed.", "Write one text.")
        return H5Member(path, key, shape, np.dtype("U"), False, 0)
    dtype = dataset.dtype
    if dtype.kind not in "biufc":
        raise DataError(f"This dataset has the dtype {dtype}, which is not a number or text.", "Save numeric arrays.")
    size, stored = math.prod(shape) * dtype.itemsize, dataset.id.get_storage_size()
    if size > BOMB_BYTES and size > BOMB_RATIO * stored:
        raise DataError(
            f"This dataset of shape {shape} claims {size} bytes, and {stored} are stored: more than {BOMB_RATIO}:1 "
            f"above {BOMB_BYTES >> 30} GiB; it is not unpacked.",
            "Write the values into the file, without compression if they are nearly all the same.",
        )
    offset = dataset.id.get_offset() if dataset.chunks is None else None
    mapped = offset is not None and stored == size >= MAP_BYTES and offset + size <= path.stat().st_size
    return H5Member(path, key, shape, dtype, mapped, offset if mapped and offset is not None else 0)
