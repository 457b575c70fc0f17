"""Look at a file before a reader of Ptychodus opens it: those follow every link, and unpack whatever they meet."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from ptychopinn.data.hdf5 import is_hdf5
from ptychopinn.data.hdf5_tree import DAMAGE, Hdf5Tree
from ptychopinn.data.scan_file import BOMB_BYTES, BOMB_RATIO, open_npz
from ptychopinn.errors import DataError
from ptychopinn.hdf5_chunks import check_chunks
from ptychopinn.path_checks import why_unreadable

_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_MAX_ITEMS = 100_000
_MAX_DEPTH = 64


def series_of(path: Path) -> list[Path]:
    """The file and all others of its folder that may be of its series: the same suffix, and letters up to a digit."""
    letters = re.split(r"\d", path.stem, maxsplit=1)[0]
    beside = (p for p in sorted(path.parent.iterdir()) if p.suffix == path.suffix and p.name.startswith(letters))
    return [path, *(p for p in beside if p != path)]


def refuse_unsafe(path: Path) -> None:
    """Refuse a series of files that would lead a reader out of their folder, into an endless loop or out of memory.

    Raises
    ------
    DataError
        Naming the file and what is in it.
    """
    for file in series_of(path):
        if (why := why_unreadable(file)) is not None:
            raise DataError(f"{file} {why}.", "Check the name and the folder.")
        if file != path and file.resolve().parent not in (path.parent.resolve(), path.resolve().parent):
            raise DataError(f"{file} is a link out of its folder; it is not opened.", "Copy it into the folder.")
        try:
            _check(file)
        except DataError as error:
            problem = error.problem if str(file) in error.problem else f"{file}: {error.problem}"
            raise DataError(problem, error.remedy) from error


def _check(path: Path) -> None:
    with path.open("rb") as stream:
        start = stream.read(4)
    if is_hdf5(path):
        with Hdf5Tree(path) as tree:
            for dataset in _datasets(tree):
                tree.check(dataset)
                try:
                    check_chunks(dataset)
                except OSError as error:
                    raise DataError(f"'{str(dataset.name)[:200]}': {error}", "Copy or write the file again.") from error
    elif start.startswith(b"PK"):
        for problem in open_npz(path).broken.values():
            raise problem
    elif start in _TIFF:
        _check_tiff(path)


def _datasets(tree: Hdf5Tree) -> Iterator[Any]:
    """All datasets of a file and of the files of its folder that it links to; links elsewhere are refused."""
    seen: set[tuple[str, int]] = set()
    groups: list[tuple[Any, int]] = [(tree.root["/"], 0)]
    while groups:
        group, depth = groups.pop()
        try:
            names = list(group)
            place = (str(group.file.filename), int(h5py.h5o.get_info(group.id).addr))
        except DAMAGE as error:
            raise DataError(f"A group is damaged: {error!s:.300}.", "Copy or write the file again.") from error
        if place in seen or depth > _MAX_DEPTH or len(seen) + len(names) > _MAX_ITEMS:
            raise DataError(
                f"'{str(group.name)[:200]}' is reached twice, lies too deep, or has too much in it.",
                "Copy patterns and positions into a new file.",
            )
        seen.add(place)
        for name in names:
            item = tree.member(group, name)
            if isinstance(item, h5py.Dataset):
                yield item
            elif isinstance(item, h5py.Group) and _belongs(group, name, item, seen):
                groups.append((item, depth + 1))


def _belongs(group: Any, name: str, item: Any, seen: set[tuple[str, int]]) -> bool:
    """Whether a group is looked into from here: soft links lead to what is looked at where it stands."""
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        return (str(item.file.filename), int(h5py.h5o.get_info(item.id).addr)) not in seen
    return isinstance(link, h5py.HardLink)


def _check_tiff(path: Path) -> None:
    """Refuse images that name other files, or claim far more pixels than they have bytes."""
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tiff:
            names_files = "FileName" in (tiff.ome_metadata or "")
            claimed = sum(math.prod(page.shape) * (page.dtype.itemsize if page.dtype else 1) for page in tiff.pages)
    except Exception as error:  # of tifffile, which names no kinds of its own for damage
        raise DataError(f"It is a TIFF file that is damaged: {error!s:.300}.", "Copy it again.") from error
    if names_files:
        raise DataError("Its metadata name other files; they are not opened.", "Save plain TIFF files.")
    if claimed > BOMB_BYTES and claimed > BOMB_RATIO * path.stat().st_size:
        raise DataError(f"It claims {claimed} bytes of pixels; it is not unpacked.", "Save it without compression.")
