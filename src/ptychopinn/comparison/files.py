"""Result files of a candidate (JSON, CSV, HDF5)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychopinn.atomic import write_json
from ptychopinn.comparison.scoring import Figure, Scores
from ptychopinn.errors import DataError
from ptychopinn.hdf5_files import atomic_hdf5_file, open_hdf5_file
from ptychopinn.typing import AnyArray

RESULT = "leg.json"


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DataError if it is not there or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Create it again with --overwrite.") from error


def write_scores(folder: Path, scan: str, scores: Scores, more: Mapping[Figure, float]) -> None:
    """Write ``aligned-SCAN.h5``, then ``scores-SCAN.json``, which marks the scan as done."""
    with atomic_hdf5_file(folder / f"aligned-{scan}.h5") as file:
        for name, array in scores.arrays.items():
            file.create_dataset(name, data=array)
        for name, fact in scores.facts.items():
            file.attrs[name] = np.asarray(fact, np.float64)
    values: list[list[object]] = [[*figure, value] for figure, value in {**scores.figures, **more}.items()]
    skipped: list[list[object]] = [[*figure, reason] for figure, reason in scores.skipped.items()]
    write_json(folder / f"scores-{scan}.json", {"figures": values, "skipped": skipped, "facts": scores.facts})


def read_scores(folder: Path, scan: str) -> tuple[dict[Figure, float], dict[Figure, str]] | None:
    """The figures, and the reasons of skipped ones; None if the scan is not done."""
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
    """The arrays of ``aligned-SCAN.h5`` by name; empty without such a file. Raises DataError if the file is damaged."""
    path = folder / f"aligned-{scan}.h5"
    if not path.is_file():
        return {}
    arrays: dict[str, AnyArray] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[...]

    try:
        with open_hdf5_file(path) as file:
            file.visititems(keep)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}.", "Create it again with --overwrite.") from error
    return arrays
