"""What the worker process is told to do, and the events that it tells: plain JSON, a line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

STOP_FAILED = 124  # exit code of a worker that could not end its work in time

Sections = dict[str, dict[str, Any]]


class Job(BaseModel):
    """One call of train or infer."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    kind: Literal["train", "infer"]
    backend: str
    model_type: str
    settings: Sections = Field(description="Section to field to text, as the settings file has them.")
    scratch: Path = Field(description="A folder of this job alone.")
    output: Path = Field(description="Where the model (train) or the arrays (infer) go.")
    folder: Path | None = Field(None, description="train: where the training data are looked for.")
    scan: Path | None = Field(None, description="NPZ of the scan handed over by Ptychodus.")
    model: Path | None = Field(None, description="infer: the model archive.")


def event(kind: str, **content: Any) -> bytes:
    """A line of the worker's output. Numbers that are not finite are not JSON and become null."""
    clean = {k: None if isinstance(v, float) and v != v else v for k, v in content.items()}
    return json.dumps({"event": kind, **clean}, allow_nan=False, default=str).encode() + b"\n"


def parse_event(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None for anything else."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None
