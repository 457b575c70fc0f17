"""What a candidate leaves behind, and by what it is known again: JSON, CSV, and arrays in HDF5."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychopinn.atomic import atomic_write
from ptychopinn.comparison.scoring import Figure, Scores
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray

RESULT = "leg.json"
_READ_BYTES = 1 << 20


def write_json(path: Path, value: Any) -> Path:
    """Write a file of JSON, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False, default=float) + "\n", "utf-8")
    return path


def read_json(path: Path) -> Any:
    """Read a file of JSON.

    Raises
    ------
    DataError
        If it is not there or damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Make it again, with --overwrite.") from error


def digest_of_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """sha256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def write_scores(folder: Path, scan: str, scores: Scores, more: Mapping[Figure, float]) -> None:
    """Write ``aligned-SCAN.h5`` and, after it, ``scores-SCAN.json``, which says that the scan is done."""
    with atomic_write(folder / f"aligned-{scan}.h5") as temporary, h5py.File(temporary, "w") as file:
        for name, array in scores.arrays.items():
            file.create_dataset(name, data=array)
        for name, fact in scores.facts.items():
            file.attrs[name] = np.asarray(fact, np.float64)
    values: list[list[object]] = [[*figure, value] for figure, value in {**scores.figures, **more}.items()]
    skipped: list[list[object]] = [[*figure, reason] for figure, reason in scores.skipped.items()]
    write_json(folder / f"scores-{scan}.json", {"figures": values, "skipped": skipped, "facts": scores.facts})


def read_scores(folder: Path, scan: str) -> tuple[dict[Figure, float], dict[Figure, str]] | None:
    """Figures, and reasons of those that were skipped; None where the scan was not finished."""
    path = folder / f"scores-{scan}.json"
    if not path.is_file():
        return None
    found = read_json(path)
    return (
        {(quantity, metric): float(value) for quantity, metric, value in found["figures"]},
        {(quantity, metric): str(reason) for quantity, metric, reason in found["skipped"]},
    )


def remove_scores(folder: Path, scan: str) -> None:
    """Remove what `write_scores` wrote."""
    for name in (f"scores-{scan}.json", f"aligned-{scan}.h5"):
        (folder / name).unlink(missing_ok=True)


def read_arrays(folder: Path, scan: str) -> dict[str, AnyArray]:
    """The arrays of ``aligned-SCAN.h5`` by name; none where there is no such file.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    path = folder / f"aligned-{scan}.h5"
    if not path.is_file():
        return {}
    arrays: dict[str, AnyArray] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[...]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.", "Make it again, with --overwrite.") from error
    return arrays


def write_csv(path: Path, columns: Iterable[str], lines: Iterable[Sequence[Any]]) -> Path:
    """Write a table; numbers have nine digits, and None is empty."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([f"{cell:.9g}" if isinstance(cell, float) else cell for cell in line] for line in lines)
    return path
