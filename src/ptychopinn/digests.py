"""SHA-256 of files and of plain values, by which a program that resumes knows whether its inputs are the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def digest_of_file(path: Path) -> str:
    """SHA-256 of the bytes of a file, or of the names and the files in a folder that is one scan (zarr)."""
    if path.is_dir():
        return digest_of({str(p.relative_to(path)): digest_of_file(p) for p in sorted(path.rglob("*")) if p.is_file()})
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of plain values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
