"""The manifest of a model archive: the model, its writer, and its training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from pydantic import Field, JsonValue, ValidationError

from ptychopinn.config import Config, ModelConfig
from ptychopinn.config.files import unique_keys
from ptychopinn.data.conditions import ScanConditions
from ptychopinn.errors import ArchiveError

FORMAT_VERSION = 1


class ArchiveKind(StrEnum):
    """Kind of an archive."""

    MODEL = "model"
    CHECKPOINT = "checkpoint"


class Writer(Config):
    """The software that wrote an archive."""

    ptychopinn: str = Field(description="Version of ptychopinn.")
    backend: str = Field(description="Name of the backend, as --backend takes it.")
    backend_version: str = Field("", description="Version of the backend's distribution.")

    def __str__(self) -> str:
        backend = f"{self.backend:.40} {self.backend_version:.40}".strip()
        return f"ptychopinn {self.ptychopinn:.40} with the backend {backend}"


class ScalingRule(StrEnum):
    """Rule by which scans are scaled (`ptychopinn.data.scaling`); it is fitted to each scan."""

    MEAN_COUNTS = "mean-counts"  # probe energy = mean counts of a pattern; input amplitudes of root mean square 1


class TrainingSummary(Config):
    """Summary of the training, for information."""

    status: str = Field(description="How the training ended.")
    epochs: int = Field(0, ge=0, description="Epochs done.")
    seconds: float = Field(0.0, ge=0, description="Wall time.")
    patterns_seen: int = Field(0, ge=0, description="Number of patterns processed.")
    figures: dict[str, float] = Field(default_factory=dict, description="Last value of each figure.")
    config: dict[str, JsonValue] = Field(default_factory=dict, description="The training configuration.")
    scan: ScanConditions | None = Field(None, description="Conditions of the scan; null if it is of an older version.")
    warnings: tuple[str, ...] = Field((), description="Warnings of the training.")


class Manifest(Config):
    """Everything about a model except its tensors."""

    format_version: int = Field(FORMAT_VERSION, ge=1, le=FORMAT_VERSION, description="Version of this format.")
    kind: ArchiveKind = Field(ArchiveKind.MODEL, description="A model, or a checkpoint of a training.")
    writer: Writer
    model: ModelConfig = Field(description="Configuration of the network.")
    scaling: ScalingRule = Field(ScalingRule.MEAN_COUNTS, description="Rule of the scaling.")
    training: TrainingSummary | None = Field(None, description="How it was trained.")
    extra: dict[str, JsonValue] = Field(default_factory=dict, description="Other data of the backend, plain JSON.")
    sha256: dict[str, str] = Field(default_factory=dict, description="Digest of every other member; set on writing.")


def dump_manifest(manifest: Manifest) -> bytes:
    """A manifest as JSON. Raises ArchiveError if a value is not finite."""
    try:
        return json.dumps(manifest.model_dump(mode="json"), indent=2, allow_nan=False).encode()
    except ValueError as error:
        raise ArchiveError(
            f"The manifest cannot be written as JSON: {error}.", "Keep its extra to finite values."
        ) from error


def parse_manifest(text: bytes, *, source: str) -> Manifest:
    """Read a manifest from JSON; ``source`` names the archive in errors.

    Raises ArchiveError if it is not JSON, of a newer format, or not valid; names the writer, if it is known.
    """
    try:
        raw = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{source}: the manifest is not JSON: {error}.", "Copy or save the file again.") from error
    raw = raw if isinstance(raw, dict) else {}
    version = raw.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ArchiveError(
            f"{source} has format {version}, written by {_writer(raw)}; formats up to {FORMAT_VERSION} are read here.",
            "Use a newer ptychopinn, or save the model again with an older one.",
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArchiveError(
            f"{source}: the manifest, written by {_writer(raw)}, is not valid at '{where}': {first['msg']}.",
            "Copy or save the file again.",
        ) from error


def _writer(raw: Mapping[str, Any]) -> str:
    writer = raw.get("writer")
    if not isinstance(writer, dict):
        return "an unknown writer"
    words = {"ptychopinn": "?", "backend": "?", "backend_version": ""}
    return str(Writer(**{name: str(writer.get(name, unknown)) for name, unknown in words.items()}))


@contextmanager
def writer_named(manifest: Manifest) -> Iterator[None]:
    """Add to errors about an archive which version wrote it and can read it."""
    try:
        yield
    except ArchiveError as error:
        problem = f"{error.problem} It was written by {manifest.writer}, which can read it."
        raise ArchiveError(problem, error.remedy) from error
