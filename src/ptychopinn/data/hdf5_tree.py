"""Find datasets in an HDF5 file that is not trusted: links are followed here, one by one, and not by the HDF5 library.

Soft links are followed inside the file. External links and virtual datasets are followed to files of the file's own
folder (an Eiger detector writes a master file with links to its neighbours) and refused elsewhere, by name.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py

from ptychopinn.data.scan_file import BOMB_BYTES, BOMB_RATIO
from ptychopinn.errors import DataError
from ptychopinn.hdf5_chunks import check_chunks
from ptychopinn.hdf5_files import open_hdf5_file
from ptychopinn.path_checks import why_unreadable
from ptychopinn.typing import StrPath

DAMAGE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    AttributeError,
    UnicodeError,
)  # of h5py
_MAX_LINKS = 64  # on the way to one object
_MAX_FILES = 10_000
_HEAP = b"GCOL\x01\x00\x00\x00"
_HEAP_HEADER = 16  # bytes, of a collection and of each object in it
_HEAP_BYTES = 1 << 22
_MAX_LISTED = 30
_MAX_WALKED = 2000
_MAX_DEPTH = 12
_FILTERS = {
    4: "SZIP",
    307: "bzip2",
    32000: "LZF",
    32001: "Blosc",
    32004: "LZ4",
    32008: "Bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32017: "SZ",
    32024: "SZ3",
    32026: "Blosc2",
}


class Hdf5Tree:
    """The groups and datasets of an HDF5 file and of its neighbours; a context manager.

    Raises
    ------
    DataError
        If the file is not there, damaged, or open for writing.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self._stack = ExitStack()
        self._files: dict[Path, Any] = {}
        self.root = self._open(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _open(self, path: Path) -> Any:
        if path in self._files:
            return self._files[path]
        if (why := why_unreadable(path)) is not None:
            raise DataError(f"{path} {why}; an HDF5 file is needed.", "Check the name and the folder.")
        if len(self._files) >= _MAX_FILES:
            raise DataError(f"{self.path} links to more than {_MAX_FILES} files.", "Copy the data into one file.")
        refuse_endless_heap(path)
        try:
            self._files[path] = self._stack.enter_context(open_hdf5_file(path))
        except DAMAGE as error:
            raise DataError(
                f"{path} is an HDF5 file that cannot be read: {error!s:.500}.",
                "Close it where it is being written, or copy it again.",
            ) from error
        return self._files[path]

    def find(self, name: str) -> Any | None:
        """The group or dataset at a path, or None.

        Raises
        ------
        DataError
            If a link on the way leads out of the folder, or the file is damaged there.
        """
        try:
            return self._follow(self.root, name, _MAX_LINKS)
        except DAMAGE as error:
            raise DataError(f"'{name:.200}' is damaged: {error!s:.500}.", "Copy or write the file again.") from error

    def member(self, group: Any, name: str) -> Any | None:
        """As `find`, from a group on."""
        try:
            return self._follow(group, name, _MAX_LINKS)
        except DAMAGE as error:
            raise DataError(f"'{name:.200}' is damaged: {error!s:.500}.", "Copy or write the file again.") from error

    def _follow(self, start: Any, name: str, links: int) -> Any | None:
        here = start.file["/"] if name.startswith("/") else start
        for part in (part for part in name.split("/") if part not in ("", ".")):
            if not isinstance(here, h5py.Group):
                return None
            link = here.get(part, getlink=True)
            if link is None:
                return None
            if isinstance(link, h5py.HardLink):
                here = here[part]
                continue
            if links <= 0:
                raise DataError(f"'{name:.200}' is a chain or a loop of links.", "Copy the data into the file itself.")
            links -= 1
            if isinstance(link, h5py.SoftLink):
                here = self._follow(here, link.path, links)
            elif isinstance(link, h5py.ExternalLink):
                other = self._open(self.neighbour(part, link.filename))
                here = self._follow(other["/"], link.path, links)
            else:
                raise DataError(f"'{name:.200}' is a link of an unknown kind.", "Copy the data into the file itself.")
            if here is None:
                return None
        return here

    def neighbour(self, what: str, filename: str) -> Path:
        """The path of a file that ``what`` names, if it lies in the folder of this file.

        Raises
        ------
        DataError
            If it lies elsewhere or is not there.
        """
        problem = f"'{what:.100}' lies in the file '{filename:.200}'"
        remedy = "Put that file beside this one under its own name, or copy the data into this file."
        if Path(filename).name != filename or filename in ("", ".", "..") or "%" in filename:
            raise DataError(f"{problem}, which is not in the folder of {self.path.name}; it is not opened.", remedy)
        path = self.path.parent / filename
        if (why := why_unreadable(path)) is not None:
            raise DataError(f"{problem}, which {why}.", remedy)
        if path.resolve().parent not in (self.path.parent.resolve(), self.path.resolve().parent):
            raise DataError(f"{problem}, a link out of the folder of {self.path.name}; it is not opened.", remedy)
        return path

    def walk(self) -> Iterator[Any]:
        """Groups and datasets that hard links reach, the upper ones first; not more than some thousands."""
        seen = 0
        level: list[Any] = [self.root["/"]]
        for _ in range(_MAX_DEPTH):
            below: list[Any] = []
            for group in level:
                yield group
                for item in self._children(group):
                    seen += 1
                    if seen > _MAX_WALKED:
                        return
                    if isinstance(item, h5py.Group):
                        below.append(item)
                    else:
                        yield item
            level = below

    @staticmethod
    def _children(group: Any) -> Iterator[Any]:
        try:
            for name in group:
                if isinstance(group.get(name, getlink=True), h5py.HardLink):
                    yield group[name]
        except DAMAGE:
            return  # what is damaged is refused when it is asked for; this is for lists

    def listing(self) -> str:
        """Names, shapes and dtypes of the first datasets, as text for messages."""
        found = []
        for item in self.walk():
            if isinstance(item, h5py.Dataset):
                found.append(f"{str(item.name)[:80]} {_shape_of(item)}")
                if len(found) == _MAX_LISTED:
                    return ", ".join(found) + ", ..."
        return ", ".join(found) or "no datasets"

    def check(self, dataset: Any) -> int:
        """Check a dataset before it is read: where its values lie, how much they unpack to, and their filters.

        Returns
        -------
        The bytes that are stored.

        Raises
        ------
        DataError
            If values lie outside the folder, if a filter is missing, or if far more is claimed than stored.
        """
        try:
            stored = self._stored(dataset, _MAX_LINKS)
            size = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
        except DAMAGE as error:
            raise DataError(f"This dataset is damaged: {error!s:.500}.", "Copy or write the file again.") from error
        if size > BOMB_BYTES and size > BOMB_RATIO * stored:
            raise DataError(
                f"This dataset of shape {dataset.shape} claims {size} bytes, and {stored} are stored: more than "
                f"{BOMB_RATIO}:1 above {BOMB_BYTES >> 30} GiB; it is not unpacked.",
                "Write the values into the file, without compression if they are nearly all the same.",
            )
        return stored

    def _stored(self, dataset: Any, depth: int) -> int:
        if dataset.external:
            raise DataError("Its data lie outside the file.", "Copy them into the file itself.")
        if not dataset.is_virtual:
            _load_filters(dataset)
            if depth < _MAX_LINKS:  # a source of a virtual dataset, which the library reads by itself
                check_chunks(dataset)
            return int(dataset.id.get_storage_size())
        if depth <= 0:
            raise DataError("It is a chain or a loop of virtual datasets.", "Copy the data into the file itself.")
        stored = 0
        for source in {(source.file_name, source.dset_name) for source in dataset.virtual_sources()}:
            stored += self._stored(self._source(dataset, *source), depth - 1)
        return stored

    def _source(self, dataset: Any, filename: str, name: str) -> Any:
        """A dataset that a virtual one is made of; the HDF5 library goes there itself, so there may be no link."""
        file = dataset.file if filename == "." else self._open(self.neighbour(str(dataset.name), filename))
        here = file["/"]
        for part in (part for part in name.split("/") if part not in ("", ".")):
            if not isinstance(here, h5py.Group) or not isinstance(here.get(part, getlink=True), h5py.HardLink):
                raise DataError(
                    f"Its source '{name:.200}' in '{filename:.200}' is not there, or a link.",
                    "Copy the data into the file itself.",
                )
            here = here[part]
        if not isinstance(here, h5py.Dataset):
            raise DataError(f"Its source '{name:.200}' is not a dataset.", "Copy the data into the file itself.")
        return here


def refuse_endless_heap(path: Path) -> None:
    """Refuse a file in which the HDF5 library would look for a text for ever.

    Texts of variable length lie in collections ("GCOL", HDF5 file format 3.0, III.E). The library walks through their
    objects, and never ends at a free one of size 0. Collections lie near the ends of a file, where they are looked for.

    Raises
    ------
    DataError
        If there is such a collection.
    """
    with path.open("rb") as stream:
        ends = [stream.read(_HEAP_BYTES)]
        if (size := path.stat().st_size) > _HEAP_BYTES:
            stream.seek(max(size - _HEAP_BYTES, _HEAP_BYTES))
            ends.append(stream.read())
    for content in ends:
        start = content.find(_HEAP)
        while start >= 0:
            if _is_endless(content, start):
                raise DataError(f"{path} is an HDF5 file whose texts are damaged.", "Copy or write the file again.")
            start = content.find(_HEAP, start + len(_HEAP))


def _is_endless(content: bytes, start: int) -> bool:
    """Whether a walk through the collection at ``start`` does not advance at some object."""
    end = min(start + int.from_bytes(content[start + 8 : start + 16], "little"), len(content))
    at = start + _HEAP_HEADER
    while at + _HEAP_HEADER <= end:
        index, size = (int.from_bytes(content[at + k : at + k + n], "little") for k, n in ((0, 2), (8, 8)))
        step = size if index == 0 else _HEAP_HEADER + ((size + 7) & ~7) % 2**64
        if step == 0:
            return True
        at += step
    return False


def _shape_of(dataset: Any) -> str:
    try:
        return f"{dataset.shape} {dataset.dtype}"
    except DAMAGE:
        return "(damaged)"


def _load_filters(dataset: Any) -> None:
    """Make sure that the filters of a dataset are there.

    Raises
    ------
    DataError
        Naming the filter that is missing.
    """
    plist = dataset.id.get_create_plist()
    for k in range(plist.get_nfilters()):
        code = int(plist.get_filter(k)[0])
        if h5py.h5z.filter_avail(code):
            continue
        try:
            importlib.import_module("hdf5plugin")  # registers its filters
        except ImportError:
            has = "hdf5plugin is not installed"
        else:
            if h5py.h5z.filter_avail(code):
                continue
            has = "hdf5plugin does not have it either"
        name = _FILTERS.get(code, "an unknown kind")
        raise DataError(
            f"This dataset is compressed with the HDF5 filter {code} ({name}), which is missing; {has}.",
            "python -m pip install hdf5plugin, or write the file without compression or with gzip.",
        )
