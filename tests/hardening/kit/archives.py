"""Mutated model archives and checkpoints."""

from __future__ import annotations

import hashlib
import io
import json
import random
import stat
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from hardening.kit import tensors
from hardening.kit.mutation import Mutation, mangle, mutate_json, pick, strange_path

from ptychopinn.bundle import ArchiveKind, Manifest, Writer, read_bundle, read_manifest, write_bundle
from ptychopinn.checkpoints import CheckpointStore
from ptychopinn.config import ModelConfig
from ptychopinn.config.train import CheckpointMode

SUFFIX = ".zip"
_NAMES = ("../../PWNED", "/tmp/PWNED", "..\\PWNED", "weights.h5/../x", "C:PWNED", "manifest.json", "a" * 60_000, "")


@lru_cache(maxsize=2)
def whole(kind: ArchiveKind = ArchiveKind.MODEL) -> bytes:
    """A small archive that is not mutated."""
    rng = np.random.default_rng(6)
    manifest = Manifest(kind=kind, writer=Writer(ptychopinn="0.1.0", backend="numpy"), model=ModelConfig(N=32))
    weights = {
        "network/encoder/0/weight": rng.normal(size=(8, 4, 3, 3)).astype(np.float32),
        "network/encoder/0/bias": rng.normal(size=8).astype(np.float32),
        "illumination/probe": (rng.normal(size=(1, 32, 32)) + 0j).astype(np.complex64),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.zip"
        write_bundle(path, manifest, weights)
        return path.read_bytes()


def _parts(content: bytes) -> tuple[bytes, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read("manifest.json"), archive.read("weights.h5")


def _signed(manifest: bytes, weights: bytes) -> bytes:
    """The manifest with the digest of these weights: what a careful stranger would write."""
    value = json.loads(manifest)
    value["sha256"] = {"weights.h5": hashlib.sha256(weights).hexdigest()}
    return json.dumps(value).encode()


def _zip(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED, mode: int = 0o644) -> None:
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # about names that come twice
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, method
            info.external_attr = (mode if stat.S_IFMT(mode) else stat.S_IFREG | mode) << 16
            archive.writestr(info, content)


def damage(rng: random.Random, path: Path) -> str:
    """Bytes of the whole file."""
    how, content = mangle(rng, whole())
    path.write_bytes(content)
    return how


def damage_tensors(rng: random.Random, path: Path) -> str:
    """Bytes of the tensors, their digest put right."""
    manifest, weights = _parts(whole())
    how, weights = mangle(rng, weights)
    _zip(path, [("manifest.json", _signed(manifest, weights)), ("weights.h5", weights)])
    return how


def change_manifest(rng: random.Random, path: Path) -> str:
    """A value or key of the manifest."""
    manifest, weights = _parts(whole())
    text = mutate_json(rng, manifest.decode())
    changed = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        changed = pick(rng, (changed.decode(errors="ignore").encode("utf-16"), b"\xff" + changed))
    _zip(path, [("manifest.json", changed), ("weights.h5", weights)])
    return text[:60]


def change_tensors(rng: random.Random, path: Path) -> str:
    """Structure of the tensors, their digest put right."""
    manifest, weights = _parts(whole())
    how, weights = tensors.harm(rng, weights)
    _zip(path, [("manifest.json", _signed(manifest, weights)), ("weights.h5", weights)])
    return how


def change_members(rng: random.Random, path: Path) -> str:
    """Names, links, compressions and bombs."""
    manifest, weights = _parts(whole())
    members = [("manifest.json", manifest), ("weights.h5", weights)]
    how = pick(rng, ("name", "more", "missing", "link", "bzip2", "bomb", "folder", "device"))
    name = pick(rng, _NAMES)
    if how == "name":
        members[rng.randrange(2)] = (name, weights)
    elif how == "more":
        members.append((name, b"x"))
    elif how == "missing":
        del members[rng.randrange(2)]
    elif how == "bomb":
        members[rng.randrange(2)] = (members[rng.randrange(2)][0], bytes(rng.choice((5, 64)) << 20))
    mode = {"link": stat.S_IFLNK, "folder": stat.S_IFDIR, "device": stat.S_IFCHR}.get(how, 0) | 0o644
    method = {"bzip2": zipfile.ZIP_BZIP2, "bomb": zipfile.ZIP_DEFLATED}.get(how, zipfile.ZIP_STORED)
    _zip(path, members, method, mode)
    return f"{how} {name[:20]!r}"


def checkpoint(rng: random.Random, path: Path) -> str:
    """A folder of checkpoints, the newest of them damaged."""
    path.mkdir()
    (path / "epoch-0000001.ckpt.zip").write_bytes(whole(ArchiveKind.CHECKPOINT))
    how, content = mangle(rng, whole(ArchiveKind.CHECKPOINT))
    (path / "epoch-0000002.ckpt.zip").write_bytes(content)
    return how


MUTATIONS: tuple[Mutation, ...] = (
    *(damage, damage, damage_tensors, damage_tensors, change_manifest, change_manifest, change_manifest),
    *(change_tensors, change_tensors, change_tensors, change_members, checkpoint, strange_path),
)


def open_file(path: Path, target: Path) -> None:
    """Manifest, then all of it; of a folder the newest checkpoint, which is the damaged one or the whole one."""
    if path.is_dir() and (path / "epoch-0000001.ckpt.zip").exists():
        newest = CheckpointStore(path, top_k=1, mode=CheckpointMode.MIN).newest()
        assert newest is not None, "a whole checkpoint was passed over"
        return
    read_manifest(path)
    bundle = read_bundle(path)
    write_bundle(target / "again.zip", bundle.manifest, bundle.weights)
