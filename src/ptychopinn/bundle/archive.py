"""Write, verify and read model archives."""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptychopinn.atomic import atomic_write
from ptychopinn.bundle.manifest import ArchiveKind, Manifest, dump_manifest, parse_manifest
from ptychopinn.bundle.tensors import pack_weights, unpack_weights
from ptychopinn.errors import ArchiveError
from ptychopinn.path_checks import why_unreadable
from ptychopinn.typing import AnyArray, StrPath

MANIFEST_MEMBER = "manifest.json"
WEIGHTS_MEMBER = "weights.h5"
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_WEIGHTS_BYTES = 4 * 2**30
MAX_RATIO = 100  # of unpacked to packed size; only zip bombs have more

_DAMAGE = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model gives the same bytes


@dataclass(frozen=True, eq=False)
class Bundle:
    """An archive in memory."""

    manifest: Manifest
    weights: Mapping[str, AnyArray]  # name to array, in its own dtype


def write_bundle(path: StrPath, manifest: Manifest, weights: Mapping[str, AnyArray]) -> None:
    """Write an archive atomically, after reading it back.

    Parameters
    ----------
    path:
        Any name; an older file stays until the new one is complete.
    manifest:
        ``sha256`` is filled in here.
    weights:
        Names like ``encoder/0/weight`` to finite arrays: float32 or complex64, in a checkpoint any number or bool.
        ``history/`` of a checkpoint may have NaN.

    Raises
    ------
    ArchiveError
        If a name, dtype or value is not allowed, or the archive does not read back the same.
    UsageError, ResourceError
        If the folder does not exist or the disk is full.
    """
    tensors = pack_weights(weights, checkpoint=manifest.kind is ArchiveKind.CHECKPOINT)
    signed = manifest.model_copy(update={"sha256": {WEIGHTS_MEMBER: hashlib.sha256(tensors).hexdigest()}})
    text = dump_manifest(signed)
    for member, size, limit in (
        (MANIFEST_MEMBER, len(text), MAX_MANIFEST_BYTES),
        (WEIGHTS_MEMBER, len(tensors), MAX_WEIGHTS_BYTES),
    ):
        if size > limit:
            raise ArchiveError(f"{member} would have {size:,} bytes; {limit:,} is the limit.", "Save a smaller model.")
    with atomic_write(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for member, content in ((MANIFEST_MEMBER, text), (WEIGHTS_MEMBER, tensors)):
                info = zipfile.ZipInfo(member, _EPOCH)
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(info, content)
        verify_bundle(temporary, signed, weights)


def verify_bundle(path: StrPath, manifest: Manifest, weights: Mapping[str, AnyArray]) -> None:
    """Read an archive and compare it with what was written. Raises ArchiveError if anything differs."""
    found = read_bundle(path)
    same = found.manifest.model_dump(mode="json") == manifest.model_dump(mode="json")
    same = same and found.weights.keys() == weights.keys()
    if not same or not all(_identical(found.weights[name], array) for name, array in weights.items()):
        raise ArchiveError(f"{path} does not read back as it was written.", "Check the disk and save again.")


def _identical(one: AnyArray, other: AnyArray) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)


def read_bundle(path: StrPath) -> Bundle:
    """Read an archive and check all of it.

    Raises
    ------
    ArchiveError
        If it does not exist, is not an archive, is truncated, damaged, of a newer format, or holds anything forbidden.
        The error names the writer, if it is known, and a remedy.
    """
    with _open_archive(path) as archive:
        manifest = parse_manifest(archive.read(MANIFEST_MEMBER), source=str(path))
        tensors = archive.read(WEIGHTS_MEMBER)
    digest = hashlib.sha256(tensors).hexdigest()
    if manifest.sha256 != {WEIGHTS_MEMBER: digest}:
        raise ArchiveError(
            f"{path}: the SHA-256 of {WEIGHTS_MEMBER} is {digest[:12]}..., "
            f"the manifest says {manifest.sha256.get(WEIGHTS_MEMBER, 'nothing')[:12]}.",
            "The file was damaged or altered: copy or save it again.",
        )
    checkpoint = manifest.kind is ArchiveKind.CHECKPOINT
    return Bundle(manifest, unpack_weights(tensors, source=str(path), checkpoint=checkpoint, limit=MAX_WEIGHTS_BYTES))


def read_manifest(path: StrPath) -> Manifest:
    """Read the manifest of an archive quickly, without checking its tensors.

    Raises
    ------
    ArchiveError
        As in `read_bundle`, except for the tensors.
    """
    with _open_archive(path) as archive:
        return parse_manifest(archive.read(MANIFEST_MEMBER), source=str(path))


@contextmanager
def _open_archive(path: StrPath) -> Iterator[zipfile.ZipFile]:
    """Open the zip file and check its members; errors while reading it become `ArchiveError`."""
    path = Path(path)
    if (why := why_unreadable(path)) is not None:
        raise ArchiveError(f"The model archive {path} {why}.", "Give the file, or the run directory that holds it.")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive.infolist())
            yield archive
    except (*_DAMAGE, EOFError, ValueError, NotImplementedError, OSError) as error:
        raise ArchiveError(
            f"{path} is not a whole model archive: {error}.", "It may be truncated: copy or save it again."
        ) from error


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    wanted = {MANIFEST_MEMBER: MAX_MANIFEST_BYTES, WEIGHTS_MEMBER: MAX_WEIGHTS_BYTES}
    remedy = "Do not trust the file; a model archive holds only " + " and ".join(wanted) + "."
    names = [member.filename for member in members]
    if missing := [name for name in wanted if name not in names]:
        raise ArchiveError(
            f"{path} is a zip file but no model archive: {' and '.join(missing)} missing, {len(names)} other members.",
            "Give an archive that ptychopinn saved; models of other programs are not read.",
        )
    for member in members:
        name, shown = member.filename, member.filename[:80]
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
            raise ArchiveError(f"{path} holds the member {shown!r}, which points outside of it.", remedy)
        if name not in wanted:
            raise ArchiveError(f"{path} holds the unexpected member {shown!r}.", remedy)
        if names.count(name) > 1:
            raise ArchiveError(f"{path} holds the member {shown!r} more than once.", remedy)
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise ArchiveError(f"{path}: the member {shown!r} is a link or another special file.", remedy)
        if member.flag_bits & 0x1:
            raise ArchiveError(f"{path}: the member {shown!r} is encrypted.", remedy)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveError(f"{path}: the member {shown!r} is packed with method {member.compress_type}.", remedy)
        if member.file_size > wanted[name] or member.file_size > MAX_RATIO * max(member.compress_size, 1):
            raise ArchiveError(
                f"{path}: the member {shown!r} unpacks from {member.compress_size:,} to {member.file_size:,} bytes.",
                remedy,
            )
