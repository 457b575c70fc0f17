"""Arrays in an HDF5 file, with the interface of `ptychopinn.data.scan_file`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychopinn.data.hdf5_tree import DAMAGE, Hdf5Tree
from ptychopinn.data.scan_file import MAP_BYTES, ScanFile, read_into_buffer
from ptychopinn.errors import DataError
from ptychopinn.hdf5_chunks import check_chunks
from ptychopinn.hdf5_files import open_hdf5_file
from ptychopinn.path_checks import why_unreadable
from ptychopinn.typing import AnyArray, StrPath

MAGIC = b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS = (0, 512, 1024, 2048)  # offsets at which HDF5 may begin; MATLAB writes 512 bytes of its own before it
_BLOCK_BYTES = 1 << 24
_MAX_TEXT_BYTES = 1 << 20
_COPY_AGAIN = "Copy or write the file again."
_COMPLEX_FIELDS = (("real", "imag"), ("r", "i"), ("re", "im"))  # of MATLAB, of h5py, of others


@dataclass(frozen=True)
class H5Member:
    """One dataset, without its values."""

    path: Path
    # From the file; text has the dtype ``U``, a pair of real and imaginary part is complex.
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    mapped: bool  # whether `load` maps it instead of reading it (contiguous and uncompressed)
    offset: int  # of its bytes in the file, if they are mapped
    fields: tuple[str, str] | None = None  # names of real and imaginary part, if the file has a record of two

    def __str__(self) -> str:
        return f"shape {self.shape}, {self.dtype}"

    def load(self) -> AnyArray:
        """The array: memory-mapped read-only, or read once; a large one goes to a temporary file.

        Raises
        ------
        DataError
            If the bytes are damaged.
        ResourceError
            If neither memory nor disk suffice.
        """
        try:
            if self.mapped:
                return np.asarray(np.memmap(self.path, self.dtype, "r", self.offset, self.shape))
            if self.dtype.kind == "U":
                with open_hdf5_file(self.path) as file:
                    return np.array(file[self.key].asstr()[()]).reshape(())
            size = math.prod(self.shape) * self.dtype.itemsize
            return (
                read_into_buffer(f"{self.path}: {self.key} ({self})", size, self._blocks())
                .view(self.dtype)
                .reshape(self.shape)
            )
        except DAMAGE as error:
            raise DataError(f"This dataset ({self}) cannot be read: {error!s:.500}.", _COPY_AGAIN) from error

    def verify(self) -> None:
        """Do nothing: contiguous HDF5 datasets have no checksum."""

    def _blocks(self) -> Iterator[bytes]:
        with open_hdf5_file(self.path) as file:
            dataset = file[self.key]
            check_chunks(dataset)
            if not self.shape:
                yield self._bytes(dataset[()])
                return
            row = math.prod(self.shape[1:]) * self.dtype.itemsize
            step = max(_BLOCK_BYTES // max(row, 1), 1)
            for low in range(0, self.shape[0], step):
                yield self._bytes(dataset[low : low + step])

    def _bytes(self, values: Any) -> bytes:
        if self.fields is not None:
            values = values[self.fields[0]] + 1j * values[self.fields[1]]
        return np.ascontiguousarray(values, self.dtype).tobytes()


def is_hdf5(path: StrPath) -> bool:
    """Whether a file starts like HDF5, perhaps after a block of another program."""
    if why_unreadable(path) is not None:
        return False
    try:
        with Path(path).open("rb") as stream:
            return any(stream.seek(offset) >= 0 and stream.read(len(MAGIC)) == MAGIC for offset in _USER_BLOCKS)
    except OSError:
        return False


def open_hdf5(path: StrPath, wanted: Collection[str] = ()) -> ScanFile:
    """List the datasets at the root of an HDF5 file, without reading values.

    If none of the ``wanted`` names is there, but exactly one group of the file has one of them, that group is listed.
    Safe for untrusted files: see `ptychopinn.data.hdf5_tree`.

    Raises
    ------
    DataError
        If it is damaged or open for writing.
    """
    path = Path(path)
    with Hdf5Tree(path) as tree:
        try:
            return _list(tree, wanted)
        except DAMAGE as error:
            raise DataError(f"{path} is an HDF5 file that is damaged: {error!s:.500}.", _COPY_AGAIN) from error


def _list(tree: Hdf5Tree, wanted: Collection[str]) -> ScanFile:
    group = tree.root["/"]
    notes: list[str] = []
    if wanted and not any(name in group for name in wanted):
        groups = [item for item in tree.walk() if isinstance(item, h5py.Group) and any(n in item for n in wanted)]
        if len(groups) == 1:
            group = groups[0]
            notes.append(f"The arrays are those of the group {str(group.name)[:200]}.")
    found = ScanFile(tree.path, {}, {}, tree.listing(), tuple(notes))
    for key in group:
        try:
            item = tree.member(group, key)
            if isinstance(item, h5py.Dataset):
                found.members[key] = member_of(tree, item)
            elif item is None:
                found.broken[key] = DataError("This is a link to what is not there.", _COPY_AGAIN)
        except DataError as error:
            found.broken[key] = error
        except DAMAGE as error:
            found.broken[key] = DataError(f"This dataset is damaged: {error!s:.500}.", _COPY_AGAIN)
    return found


def member_of(tree: Hdf5Tree, dataset: Any) -> H5Member:
    """A dataset of a tree, checked but not read.

    Raises
    ------
    DataError
        As `Hdf5Tree.check`, and for dtypes other than numbers and one text.
    """
    path, key = Path(dataset.file.filename), str(dataset.name)
    if dataset.shape is None:
        raise DataError("This dataset has no values.", "Write the values into the file.")
    shape = tuple(int(n) for n in dataset.shape)
    stored = tree.check(dataset)
    if h5py.check_string_dtype(dataset.dtype) is not None:
        if math.prod(shape) != 1 or dataset.dtype.itemsize > _MAX_TEXT_BYTES:
            raise DataError(f"This dataset holds texts of shape {shape}; one text is needed.", "Write one text.")
        return H5Member(path, key, shape, np.dtype("U"), False, 0)
    dtype, fields = dataset.dtype, None
    if dtype.names is not None and (fields := _complex_fields_of(dtype)) is not None:
        dtype = np.dtype(np.complex128 if dtype[0].itemsize > 4 else np.complex64)
    if dtype.kind not in "biufc":
        raise DataError(
            f"This dataset has the dtype {str(dtype)[:300]}, which is not a number or text.", "Save numeric arrays."
        )
    size = math.prod(shape) * dtype.itemsize
    offset = None if dataset.chunks is not None or dataset.is_virtual or fields else dataset.id.get_offset()
    mapped = offset is not None and stored == size >= MAP_BYTES and offset + size <= path.stat().st_size
    return H5Member(path, key, shape, dtype, mapped, offset if mapped and offset is not None else 0, fields)


def _complex_fields_of(dtype: np.dtype[Any]) -> tuple[str, str] | None:
    """Names of real and imaginary part of a record of two numbers; None for other records."""
    names = dtype.names or ()
    known = [pair for pair in _COMPLEX_FIELDS if tuple(name.lower() for name in names) == pair]
    if not known or any(dtype[k].kind not in "fiu" for k in (0, 1)):
        return None
    return names[0], names[1]
