"""Model archives for tests, also such as `ptychopinn.bundle` never writes."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychopinn.bundle import (
    Manifest,
    TrainingSummary,
    Writer,
)
from ptychopinn.config import ModelConfig
from ptychopinn.typing import AnyArray

WEIGHTS: Mapping[str, AnyArray] = {
    "encoder/0/weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "encoder/0/bias": np.float32(3) * np.ones((), np.float32),
    "probe/initial": np.full((1, 4, 4), 1 + 2j, np.complex64),
}


def manifest(**changes: Any) -> Manifest:
    return Manifest(
        writer=Writer(ptychopinn="0.1.0", backend="torch", backend_version="0.1.0"),
        model=ModelConfig(N=64, gridsize=2),
        training=TrainingSummary(status="finished", epochs=3, seconds=1.5, figures={"loss": 0.25}),
        extra={"detector_offset_px": [0.5, -1.0], "note": None},
        **changes,
    )


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rezip(path: Path, content: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def with_manifest(path: Path, **changes: Any) -> None:
    """The archive with other values in its manifest."""
    content = members(path)
    content["manifest.json"] = json.dumps(json.loads(content["manifest.json"]) | changes).encode()
    rezip(path, content)


def with_tensors(path: Path, tensors: bytes, **changes: Any) -> None:
    """The archive with other tensors, rightly signed: what a stranger could send."""
    rezip(path, {"manifest.json": members(path)["manifest.json"], "weights.h5": tensors})
    with_manifest(path, sha256={"weights.h5": hashlib.sha256(tensors).hexdigest()}, **changes)


def hdf5(make: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["ok"] = np.zeros(2, np.float32)
        make(file)
    return buffer.getvalue()
