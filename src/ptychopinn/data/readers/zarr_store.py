"""The groups and arrays of a zarr store that is not trusted, read from its metadata before zarr opens it.

A store is a folder or a zip file: keys with metadata in JSON (``.zarray``, ``.zgroup``, ``.zattrs`` of version 2,
``zarr.json`` of version 3) and chunks. Arrays of objects, which are unpickled, codecs that are not listed here, and
links are refused.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.data.scan_file import BOMB_BYTES, BOMB_RATIO, read_into_buffer
from ptychopinn.errors import DataError, PluginError
from ptychopinn.typing import AnyArray

_V2_DTYPE = re.compile(r"[<>|][iuf][1248]")
_V3_DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    "float16",
    "float32",
    "float64",
}
_V2_CODECS = {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta"}
_V3_CODECS = {"bytes", "transpose", "gzip", "zstd", "blosc", "crc32c", "sharding_indexed"}
_METADATA = (".zarray", ".zgroup", "zarr.json")
_ZIP_DAMAGE = (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError)
_MAX_KEYS = 10_000_000
_MAX_NODES = 2000
_MAX_JSON_BYTES = 1 << 20
_MAX_AXES = 8
_BLOCK_BYTES = 1 << 24
_WRITE_AGAIN = "Copy the store again, or write it again with zarr."


@dataclass(frozen=True)
class Node:
    """A group, or an array without its values."""

    key: str  # its path inside the store, without slashes at the ends
    attributes: Mapping[str, Any]  # of the user
    metadata: Mapping[str, Any]  # all of it
    # Of an array; None for a group.
    shape: tuple[int, ...] | None = None
    chunks: tuple[int, ...] = ()
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))


def is_store(path: Path) -> bool:
    """Whether a folder or a zip file is a zarr store."""
    if path.is_dir():
        return any((path / name).is_file() for name in _METADATA)
    try:
        if not path.is_file() or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(name in archive.NameToInfo for name in _METADATA)
    except _ZIP_DAMAGE:
        return False


class ZarrStore:
    """The keys of a store, and the nodes that its metadata describe.

    Parameters
    ----------
    path:
        The folder or the zip file.

    Raises
    ------
    DataError
        If it has links, or metadata that are damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sizes = dict(itertools.islice(_keys(path), _MAX_KEYS + 1))  # stored bytes by key
        metadata = [key for key in self.sizes if key.rpartition("/")[2] in _METADATA]
        if len(self.sizes) > _MAX_KEYS or len(metadata) > _MAX_NODES:
            raise DataError(f"{path} has {len(metadata)} groups and arrays: too many.", "Name the folder of one array.")
        self.nodes = [self._node(key) for key in sorted(metadata, key=lambda key: (key.count("/"), key))]

    def _json(self, key: str) -> dict[str, Any]:
        if self.sizes[key] > _MAX_JSON_BYTES:
            raise DataError(f"{self.path}: {key} has {self.sizes[key]} bytes.", _WRITE_AGAIN)
        try:
            if self.path.is_dir():
                found = json.loads((self.path / key).read_bytes())
            else:
                with zipfile.ZipFile(self.path) as archive:
                    found = json.loads(archive.read(key))
        except (*_ZIP_DAMAGE, RecursionError, zlib.error) as error:
            raise DataError(f"{self.path}: {key[:200]} is no JSON: {error!s:.200}.", _WRITE_AGAIN) from error
        if not isinstance(found, dict):
            raise DataError(f"{self.path}: {key[:200]} is no JSON object.", _WRITE_AGAIN)
        return found

    def _node(self, key: str) -> Node:
        folder, _, name = key.rpartition("/")
        found = self._json(key)
        if name == "zarr.json":
            attributes = found.get("attributes", {})
            is_array = found.get("node_type") == "array"
        else:
            beside = f"{folder}/.zattrs" if folder else ".zattrs"
            attributes = self._json(beside) if beside in self.sizes else {}
            is_array = name == ".zarray"
        if not isinstance(attributes, dict):
            raise DataError(f"{self.path}: {key[:200]} has no attributes.", _WRITE_AGAIN)
        if not is_array:
            return Node(folder, attributes, found)
        try:
            shape = _sides(found["shape"])
            chunks = _sides(
                found["chunks"] if name == ".zarray" else found["chunk_grid"]["configuration"]["chunk_shape"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.path}: {key[:200]} has no shape and chunks ({error!s:.100}).", _WRITE_AGAIN
            ) from error
        if len(shape) != len(chunks):
            raise DataError(f"{self.path}: {key[:200]} has the shape {shape}, chunks {chunks}.", _WRITE_AGAIN)
        return Node(folder, attributes, found, shape, chunks, _dtype(found.get("dtype", found.get("data_type"))))

    def arrays(self, axes: int) -> list[Node]:
        """The arrays of so many axes."""
        return [node for node in self.nodes if node.shape is not None and len(node.shape) == axes]

    def listing(self) -> str:
        """Names and shapes of the first arrays, for messages."""
        found = [f"{node.key[:80] or '/'} {node.shape}" for node in self.nodes if node.shape is not None]
        return ", ".join(found[:30]) or "no arrays"

    def missing_chunks(self, node: Node) -> tuple[int, int]:
        """How many chunks of an array are not stored, and how many it has."""
        assert node.shape is not None
        needed = math.prod(-(-side // chunk) for side, chunk in zip(node.shape, node.chunks, strict=True))
        return max(needed - len(self._chunks(node)), 0), needed

    def _chunks(self, node: Node) -> list[int]:
        prefix = f"{node.key}/" if node.key else ""
        return [
            size
            for key, size in self.sizes.items()
            if key.startswith(prefix) and not key.rpartition("/")[2].startswith((".z", "zarr.json"))
        ]

    def load(self, node: Node) -> AnyArray:
        """The values of an array; large ones go to a temporary file.

        Raises
        ------
        DataError
            If it is not of plain numbers in codecs that are known, or claims far more than is stored.
        PluginError
            If zarr is not installed.
        ResourceError
            If neither memory nor disk suffice.
        """
        self._check(node)
        try:
            import zarr
            from zarr.storage import LocalStore, ZipStore
        except ImportError as error:
            raise PluginError(
                f"{self.path} is a zarr store, and zarr 3 is not installed ({error}).",
                'Install it: python -m pip install "zarr>=3".',
            ) from error
        assert node.shape is not None
        native = node.dtype.newbyteorder("=")
        store = LocalStore(self.path, read_only=True) if self.path.is_dir() else ZipStore(self.path, read_only=True)
        try:
            values = zarr.open_array(store=store, path=node.key, mode="r", zarr_format=node.metadata["zarr_format"])
            row = math.prod(node.shape[1:]) * native.itemsize
            step = max(_BLOCK_BYTES // row // node.chunks[0], 1) * node.chunks[0]
            blocks = (
                np.ascontiguousarray(values[low : low + step], native).tobytes()
                for low in range(0, node.shape[0], step)
            )
            size = math.prod(node.shape) * native.itemsize
            return read_into_buffer(f"{self.path}: {node.key}", size, blocks).view(native).reshape(node.shape)
        finally:
            store.close()

    def _check(self, node: Node) -> None:
        where = f"{self.path}: the array {node.key[:200] or '/'}"
        if node.dtype.kind == "O":
            raise DataError(
                f"{where} is not of plain numbers (its type is {_type_of(node)}); objects are not unpickled.",
                "Write the patterns as an array of numbers.",
            )
        if unknown := sorted({name for name in _codecs(node.metadata) if name not in _known(node.metadata)}):
            raise DataError(
                f"{where} needs {', '.join(name[:50] for name in unknown)}, which is not read.",
                "Write it without filters, packed with blosc, zstd or gzip.",
            )
        if (separator := _separator(node.metadata)) not in (".", "/"):
            raise DataError(f"{where} has the separator {separator!s:.50} in the names of its chunks.", _WRITE_AGAIN)
        assert node.shape is not None
        size, chunk = (math.prod(sides) * node.dtype.itemsize for sides in (node.shape, node.chunks))
        stored = sum(self._chunks(node))
        if (
            (size > BOMB_BYTES and size > BOMB_RATIO * stored)
            or chunk > max(4 * size, BOMB_BYTES)
            or size > sys.maxsize
        ):
            raise DataError(
                f"{where} of shape {node.shape} in chunks of {node.chunks} claims {size} bytes, and {stored} are "
                "stored; it is not unpacked.",
                "Write the values into the store.",
            )


def _keys(path: Path) -> Iterator[tuple[str, int]]:
    """Keys of a store with the bytes that are stored.

    Raises
    ------
    DataError
        If there is a link in a folder, or a zip file is damaged or unpacks to far more than is stored.
    """
    if not path.is_dir():
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except _ZIP_DAMAGE as error:
            raise DataError(f"{path} is a zip file that is damaged: {error!s:.200}.", "Copy it again.") from error
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * path.stat().st_size:
            raise DataError(f"{path} claims to unpack to {unpacked} bytes; it is not unpacked.", _WRITE_AGAIN)
        yield from ((entry.filename, entry.compress_size) for entry in entries if not entry.is_dir())
        return
    folders = [(path, "")]
    while folders:
        folder, prefix = folders.pop()
        with os.scandir(folder) as found:
            inside = list(found)
        for entry in inside:
            if entry.is_symlink() or not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                raise DataError(
                    f"{path}: {prefix}{entry.name} is a link or no regular file; it is not followed.",
                    "Copy the data into the store itself.",
                )
            if entry.is_dir(follow_symlinks=False):
                folders.append((Path(entry.path), f"{prefix}{entry.name}/"))
            else:
                yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False).st_size


def _sides(values: Any) -> tuple[int, ...]:
    sides = tuple(values)
    if len(sides) > _MAX_AXES or any(type(side) is not int or not 0 < side < sys.maxsize for side in sides):
        raise ValueError(f"{sides!s:.100}")
    return sides


def _dtype(given: Any) -> np.dtype[Any]:
    """The dtype of numbers; that of objects for everything else."""
    if (
        isinstance(given, str)
        and (_V2_DTYPE.fullmatch(given) or given in _V3_DTYPES)
        and given not in ("<f1", ">f1", "|f1")
    ):
        return np.dtype(given)
    return np.dtype(object)


def _type_of(node: Node) -> str:
    return str(node.metadata.get("dtype", node.metadata.get("data_type")))[:100]


def _separator(metadata: Mapping[str, Any]) -> Any:
    """What stands between the numbers in the name of a chunk, which is a path."""
    if metadata.get("zarr_format") == 2:
        return metadata.get("dimension_separator", ".")
    encoding = metadata.get("chunk_key_encoding")
    encoding = encoding if isinstance(encoding, dict) else {}
    settings = encoding.get("configuration")
    default = {"default": "/", "v2": "."}.get(str(encoding.get("name")))
    return settings.get("separator", default) if isinstance(settings, dict) else default


def _known(metadata: Mapping[str, Any]) -> set[str]:
    return _V3_CODECS if metadata.get("zarr_format") == 3 else _V2_CODECS


def _codecs(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Names of all codecs of an array; of other things in their place, and of storage transformers, their text."""
    if metadata.get("zarr_format") == 2:
        for one in (metadata.get("compressor"), *_list(metadata.get("filters"))):
            if one is not None:
                yield str(one.get("id")) if isinstance(one, dict) else str(one)
        return
    yield from (f"the storage transformer {one!s:.50}" for one in _list(metadata.get("storage_transformers")))
    waiting = _list(metadata.get("codecs"))
    while waiting:
        one = waiting.pop()
        settings = one.get("configuration") if isinstance(one, dict) else None
        yield str(one.get("name")) if isinstance(one, dict) else str(one)
        if isinstance(settings, dict):
            waiting += [*_list(settings.get("codecs")), *_list(settings.get("index_codecs"))]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]
