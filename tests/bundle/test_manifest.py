"""The manifest of a model archive: specs/08-archive.md."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from bundle_files import WEIGHTS, manifest, members, rezip, with_manifest

from ptychopinn.bundle import (
    read_bundle,
    read_manifest,
    write_bundle,
)
from ptychopinn.config import ModelConfig
from ptychopinn.errors import ArchiveError


def test_the_manifest_is_read_without_the_tensors(saved: Path) -> None:
    """[ARC-002]"""
    content = members(saved)
    rezip(saved, content | {"weights.h5": b"damaged"})
    assert read_manifest(saved).writer.backend == "torch"
    rezip(saved, content | {"other": b""})
    with pytest.raises(ArchiveError, match="unexpected member"):
        read_manifest(saved)


def test_the_manifest_is_json_with_the_documented_keys(saved: Path) -> None:
    """[ARC-002]"""
    raw = json.loads(members(saved)["manifest.json"])
    assert set(raw) == {"format_version", "kind", "writer", "model", "scaling", "training", "extra", "sha256"}
    assert raw["format_version"] == 1
    assert raw["writer"] == {"ptychopinn": "0.1.0", "backend": "torch", "backend_version": "0.1.0"}
    assert set(raw["model"]) == set(ModelConfig.model_fields)
    assert raw["sha256"] == {"weights.h5": hashlib.sha256(members(saved)["weights.h5"]).hexdigest()}


def test_extra_that_is_not_finite_is_refused(path: Path) -> None:
    """[ARC-005]"""
    bad = manifest().model_copy(update={"extra": {"scale": float("nan")}})
    with pytest.raises(ArchiveError, match="cannot be written as JSON"):
        write_bundle(path, bad, WEIGHTS)


def test_a_manifest_too_large_is_refused(saved: Path) -> None:
    """[ARC-011]"""
    rezip(saved, members(saved) | {"manifest.json": os.urandom(5 * 2**20)})
    with pytest.raises(ArchiveError, match=r"'manifest\.json' unpacks"):
        read_bundle(saved)


def test_an_extra_too_large_is_refused_on_writing(path: Path) -> None:
    """[ARC-011]"""
    large = manifest().model_copy(update={"extra": {"a": "x" * 5 * 2**20}})
    with pytest.raises(ArchiveError, match=r"manifest\.json would have"):
        write_bundle(path, large, WEIGHTS)


def test_a_newer_format_names_its_writer(saved: Path) -> None:
    """[ARC-013] Before anything else of the manifest is looked at."""
    with_manifest(saved, format_version=7, model={"what": "nobody knows"})
    with pytest.raises(
        ArchiveError, match=r"format 7, written by ptychopinn 0\.1\.0 with the backend torch.*newer ptychopinn"
    ):
        read_bundle(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "is not JSON"),
        (b'{"format_version": 1, "format_version": 1}', "the key 'format_version' is given twice"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "not valid at ''.*should be a valid dictionary"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_a_manifest_that_does_not_parse_is_refused(saved: Path, text: bytes, message: str) -> None:
    """[ARC-015]"""
    rezip(saved, members(saved) | {"manifest.json": text})
    with pytest.raises(ArchiveError, match=message):
        read_bundle(saved)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"model": {"N": 63}}, "model.N"),
        ({"model": {"depth": 3}}, "model.depth"),
        ({"format_version": 0}, "format_version"),
        ({"kind": "recipe"}, "kind"),
        ({"scaling": "by-eye"}, "scaling"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_that_does_not_fit_names_the_place(saved: Path, changes: dict[str, Any], place: str) -> None:
    """[ARC-015]"""
    with_manifest(saved, **changes)
    with pytest.raises(ArchiveError, match=rf"torch 0\.1\.0, is not valid at '{place}'"):
        read_bundle(saved)
