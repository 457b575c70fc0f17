"""Follow a growing HDF5 file."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.errors import DataError
from ptychopinn.hdf5_files import open_hdf5_file
from ptychopinn.live.arrivals import Arrival, Chunk, Rejection, Setup
from ptychopinn.typing import StrPath

_log = logging.getLogger(__name__)
_ZIP_MAGIC = b"PK\x03\x04"
_PATTERN_KEYS = ("diffraction", "diff3d")
_UNFINISHED_FILE_ERRORS = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
)  # exceptions of h5py for a file that is being written


def _refuse_archive(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_ZIP_MAGIC))
    except OSError:  # it is not there yet, or its writer has locked it
        return
    if start == _ZIP_MAGIC:
        raise DataError(
            f"{path} is an NPZ file: a scan in it is complete and cannot grow.",
            "Reconstruct it with ptychopinn infer, or write an HDF5 file (docs/streaming.md).",
        )


def follow_hdf5(
    path: StrPath, *, measurement: Measurement | None = None, most: int = 256, poll_s: float = 0.2
) -> Iterator[Arrival]:
    """Yield the data added to a file, until it says that it is finished.

    The file is opened again for every look, with SWMR if it allows that. So the writer may start later, and may close
    the file between its additions.

    Parameters
    ----------
    path:
        The file, which may not exist yet; specs/17-streaming.md has its datasets.
    measurement:
        Domain of the patterns; None: as the file says.
    most:
        Maximum number of patterns read at a time.
    poll_s:
        Seconds between two looks without new data.

    Raises
    ------
    DataError
        If the file is an NPZ, which cannot grow.
    """
    path = Path(path)
    rows_read, last_error, ready = 0, "", False
    while True:
        arrived: list[Arrival] = []
        finished = False
        try:
            with _open_file(path) as file:
                if not ready:
                    arrived.append(_setup(file))
                    ready = True
                chunk, available = _rows(file, rows_read, most, measurement)
                if chunk is not None:
                    arrived.append(chunk)
                    rows_read += len(chunk)
                finished = (
                    rows_read >= available and "finished" in file and bool(np.asarray(file["finished"][()]).any())
                )
        except _UNFINISHED_FILE_ERRORS as error:
            _refuse_archive(path)
            if str(error) != last_error and path.is_file() and not _is_locked(error):
                last_error = str(error)
                arrived.append(Rejection(f"{path} cannot be read (yet): {error}", 0))
        yield from arrived
        if finished:
            return
        if not any(isinstance(arrival, Chunk) for arrival in arrived):
            yield None
            time.sleep(poll_s)


def _open_file(path: Path) -> Any:
    try:
        return open_hdf5_file(path, libver="latest", swmr=True)
    except (OSError, ValueError):  # a format without SWMR is readable only while no writer has it open
        return open_hdf5_file(path)


def _is_locked(error: Exception) -> bool:
    return "lock" in str(error) or "already open" in str(error)


def _setup(file: Any) -> Setup:
    patterns = _dataset(file)
    size = patterns.shape[1]
    probe = bad = None
    metadata = ScanMetadata()
    if "probeGuess" in file:
        probe = np.asarray(file["probeGuess"][()], np.complex64).reshape(-1, size, size)
    if "bad_pixels" in file:
        bad = np.asarray(file["bad_pixels"][()]).reshape(size, size) != 0
    if "_metadata" in file:
        text = file["_metadata"].asstr()[()]
        try:
            metadata = ScanMetadata(**json.loads(text))
        except ValidationError as error:
            raise ValueError(f"_metadata do not fit: {error.errors()[0]['msg']}") from error
    return Setup(probe, bad, metadata)


def _dataset(file: Any) -> Any:
    key = next((key for key in _PATTERN_KEYS if key in file), None)
    if key is None:
        raise KeyError(f"it has neither {' nor '.join(_PATTERN_KEYS)}")
    return file[key]


def _rows(file: Any, rows_read: int, most: int, measurement: Measurement | None) -> tuple[Chunk | None, int]:
    """The next rows that all datasets have, and their number."""
    patterns, x, y = _dataset(file), file["xcoords"], file["ycoords"]
    index = file.get("index")
    available = min(len(d) for d in (patterns, x, y, index) if d is not None)
    if available <= rows_read:
        return None, available
    if patterns.ndim != 3 or x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"patterns have the shape {patterns.shape}; (n, N, N) is needed, and (n,) of the coordinates")
    part = slice(rows_read, min(available, rows_read + most))
    chunk = Chunk(
        indices=np.arange(part.start, part.stop) if index is None else np.asarray(index[part], np.int64),
        positions=np.stack([y[part], x[part]], axis=1).astype(np.float64),
        patterns=patterns[part],
        measurement=measurement or _measurement(file, patterns),
    )
    return chunk, available


def _measurement(file: Any, patterns: Any) -> Measurement:
    if "_metadata" in file:
        declared = json.loads(file["_metadata"].asstr()[()]).get("measurement")
        if declared is not None:
            return Measurement(declared)
    if patterns.dtype.kind in "iu":
        return Measurement.COUNTS
    raise ValueError("it does not say whether its patterns are counts or amplitudes; use --measurement")
