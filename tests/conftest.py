"""Scans that tests share."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptychopinn.forward import expected_counts

ScanArrays = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the measured scan and its reference; they are not part of the project."""
    folder = Path(__file__).resolve().parents[1] / "../shared/data"
    if not (folder / "siemens-star.npz").is_file():
        pytest.skip(f"the measured scan is not there: {folder.resolve()}")
    return folder.resolve()


@lru_cache(maxsize=4)
def _simulated(n: int, size: int) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    r = np.arange(size) - (size - 1) / 2
    radius2 = r[:, None] ** 2 + r[None, :] ** 2
    probe = np.exp(-radius2 / (0.3 * size) ** 2 * (1 - 0.5j))
    probe *= np.sqrt(2e4 / (np.abs(probe) ** 2).sum())
    columns = max(int(np.sqrt(n)), 1)
    y, x = np.divmod(np.arange(n), columns)
    positions = size / 2 + 3.0 * np.stack([y, x], axis=1) + rng.uniform(0, 1, (n, 2))
    shape = tuple(int(v) + size // 2 + 2 for v in positions.max(axis=0))
    obj = (0.8 + 0.2 * rng.random(shape)) * np.exp(0.5j * rng.random(shape))
    counts = rng.poisson(expected_counts(obj, probe[None], positions)).astype(np.uint16)
    return {"counts": counts, "positions": positions, "probe": probe[None].astype(np.complex64), "object": obj}


@pytest.fixture
def scan_arrays() -> ScanArrays:
    """Makes the arrays of a tiny valid canonical scan; keywords replace keys, None removes one."""

    def make(n: int = 9, size: int = 32, **changes: Any) -> dict[str, Any]:
        scan = _simulated(n, size)
        metadata = {"schema_version": 1, "measurement": "amplitude", "nphotons": float(scan["counts"].sum() / n)}
        arrays: dict[str, Any] = {
            "diffraction": np.sqrt(scan["counts"].astype(np.float32)),
            "xcoords": scan["positions"][:, 1].copy(),
            "ycoords": scan["positions"][:, 0].copy(),
            "probeGuess": scan["probe"].copy(),
            "objectGuess": scan["object"].astype(np.complex64),
            "scan_index": np.zeros(n, np.int64),
            "bad_pixels": np.zeros((size, size), bool),
            "_metadata": np.array(json.dumps(metadata)),
        }
        arrays.update(changes)
        return {key: value for key, value in arrays.items() if value is not None}

    return make


@pytest.fixture
def tiny_scan(tmp_path: Path, scan_arrays: ScanArrays) -> Path:
    """A tiny valid canonical file: 9 patterns of 32 x 32."""
    path = tmp_path / "tiny.npz"
    np.savez(path, **scan_arrays())
    return path
