"""The files that the jobs of a scan in tiles share: its plan, its patterns, and the arrays of each round of jobs.

A job writes arrays of the core of its tile, and reads those of any part of the object, so it also reads the borders of
its neighbours.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.arrays import slices_of
from ptychopinn.atomic import atomic_write, write_json
from ptychopinn.config.automatic import Freedom
from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.dataset import ScanDataset, ScanMetadata
from ptychopinn.data.lazy_rows import LazyRows, MappedRows, mapped_rows, release_pages
from ptychopinn.data.scaling import Scaling
from ptychopinn.errors import DataError
from ptychopinn.geometry import Frame
from ptychopinn.typing import AnyArray, BoolArray, FloatArray, IntArray, StrPath

PLAN, GRID, NETWORK = "plan.json", "grid.npz", "network.zip"
OBJECT, VELOCITY, LAST, COVERAGE = "object", "velocity", "last", "coverage"  # arrays of the core of a tile
START = "start"  # the round of flat objects, which has the coverage
GRADIENTS, FIGURES, FITTED = "gradients.npz", "figures.npz", "fitted.npz"  # of a job, of a job, of a round
_SCAN, _PATTERNS, _ROWS, _BAD, _MODEL = "scan.npz", "patterns.bin", "rows.npy", "bad_values.npz", "model.npz"
_BLOCK = 256  # patterns copied at a time


@dataclass(frozen=True, eq=False)
class TilePatterns:
    """The patterns of a tile."""

    members: IntArray  # (k,) int64 numbers in the scan, ascending
    own: BoolArray  # (k,) bool: whether each is in the core
    positions: FloatArray  # (k, 2) float64 places
    ranks: IntArray  # (k,) int64: places in the list of patterns that passes use; -1 for others
    judges: IntArray  # indices of the patterns in the core that judge the result
    slow: IntArray  # indices of the patterns in the core that determine the slow phase


class TileStore:
    """The files in a folder. The plan is read once.

    Raises
    ------
    DataError
        If there is no plan.
    """

    def __init__(self, folder: StrPath) -> None:
        self.folder = Path(folder)
        try:
            self.plan: dict[str, Any] = json.loads((self.folder / PLAN).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise _lost(self.folder / PLAN, error) from error
        self.cores, self.frames = ([frame_from(one) for one in self.plan[name]] for name in ("cores", "frames"))
        self.frame = frame_from(self.plan["frame"])

    @classmethod
    def create(cls, folder: Path, path: StrPath, data: ScanDataset, scaling: Scaling, plan: dict[str, Any]) -> None:
        """Write what jobs need to know of a scan, and a plan; patterns that cannot be mapped are copied.

        Raises
        ------
        ResourceError
            If the disk is full.
        """
        small = {"positions": data.positions, "probe": data.probe, "bad_pixels": data.bad_pixels}
        save_arrays(folder / _SCAN, **small, offset=scaling.detector_offset_px)
        found = mapped_rows(data.patterns, path)
        place, index = found or (_copy(folder / _PATTERNS, data), None)
        if index is not None:
            _save_array(folder / _ROWS, index)
        if (bad := data.bad_values) is not None:
            assert bad.fill is not None  # the scan has it
            save_arrays(folder / _BAD, offsets=bad.offsets, pixels=bad.pixels, fill=bad.fill)
        content = {
            **plan,
            "bad_values": bad is not None,
            "patterns": asdict(place),
            "rows": index is not None,
            "scan": {
                "measurement": str(data.measurement),
                "metadata": data.metadata.model_dump(mode="json"),
                "counts_per_unit": data.counts_per_unit,
                "name": data.name,
            },
            "scaling": {name: getattr(scaling, name) for name in ("mean_counts", "input_scale", "probe_scale")},
        }
        write_json(folder / PLAN, content)

    def scan(self, members: IntArray) -> ScanDataset:
        """The scan with some of its patterns, which are read when they are needed; its scaling is that of all."""
        try:
            patterns = MappedRows(**self.plan["patterns"]).open()
            rows = np.load(self.folder / _ROWS, mmap_mode="r")[members] if self.plan["rows"] else members
        except (OSError, ValueError) as error:
            raise _lost(self.folder, error) from error
        values = load_arrays(self.folder / _BAD) if self.plan["bad_values"] else None
        about, small = self.plan["scan"], load_arrays(self.folder / _SCAN)
        return ScanDataset(
            patterns=LazyRows(patterns, np.asarray(rows)),
            measurement=about["measurement"],
            positions=small["positions"][members],
            probe=small["probe"],
            bad_pixels=small["bad_pixels"],
            bad_values=None if values is None else BadValues(**values, size=patterns.shape[1:]).select(members),
            metadata=ScanMetadata(**about["metadata"]),
            counts_per_unit=about["counts_per_unit"],
            name=about["name"],
            scaling=Scaling(**self.plan["scaling"], detector_offset_px=small["offset"]),
        ).as_checked()

    def positions(self) -> FloatArray:
        """(n, 2) float64 (y, x) of all patterns."""
        return load_arrays(self.folder / _SCAN)["positions"]

    # Tiles

    @staticmethod
    def put_tile(folder: Path, number: int, patterns: TilePatterns) -> None:
        """Write the patterns of a tile."""
        save_arrays(folder / f"tile-{number:04}.npz", **vars(patterns))

    def tile(self, number: int) -> TilePatterns:
        """The patterns of a tile."""
        return TilePatterns(**load_arrays(self.folder / f"tile-{number:04}.npz"))

    # The model: probe and background

    def put_model(self, **arrays: AnyArray) -> None:
        """Write the arrays of the model."""
        save_arrays(self.folder / _MODEL, **arrays)

    def model(self) -> dict[str, AnyArray]:
        """The arrays of the model."""
        return load_arrays(self.folder / _MODEL)

    # Rounds

    def read_fitted(self, round_name: str | None, freedom: Freedom) -> AnyArray | None:
        """(n, ...) what was fitted to all patterns after a round; None if nothing was."""
        if round_name is None or freedom not in self.plan["may_free"]:
            return None
        path = self.folder / round_name / FITTED
        return load_arrays(path).get(str(freedom)) if path.exists() else None

    def job_folder(self, round_name: str, number: int) -> Path:
        """The folder of the job of a tile in a round."""
        return self.folder / round_name / f"tile-{number:04}"

    def put(self, round_name: str, number: int, name: str, array: AnyArray) -> None:
        """Write an array of the core of a tile."""
        _save_array(self.job_folder(round_name, number) / f"{name}.npy", array)

    def read(self, round_name: str, name: str, frame: Frame) -> AnyArray:
        """An array of a round in a part of the object, out of those of the tiles that it touches.

        Raises
        ------
        DataError
            If one is not there.
        """
        whole: AnyArray | None = None
        for number, core in enumerate(self.cores):
            here, there = frame.overlap(core)
            if any(part.start == part.stop for part in here):
                continue
            path = self.job_folder(round_name, number) / f"{name}.npy"
            try:
                array = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise _lost(path, error) from error
            if whole is None:
                whole = np.zeros(frame.shape, array.dtype)
            whole[here] = array[there]
        assert whole is not None  # the cores fill the frame of the object
        return whole

    def forget(self, round_name: str, *names: str) -> None:
        """Remove arrays of a round."""
        for number in range(len(self.cores)):
            for name in names:
                (self.job_folder(round_name, number) / f"{name}.npy").unlink(missing_ok=True)


def frame_from(values: list[list[int]]) -> Frame:
    """A frame, as JSON has it."""
    (height, width), (y, x) = values
    return Frame((height, width), (y, x))


def save_arrays(path: Path, **arrays: AnyArray) -> None:
    """Write arrays atomically, without compression."""
    with atomic_write(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def _save_array(path: Path, array: AnyArray) -> None:
    """Write a file that can be mapped. (An error of `numpy.save` does not say that the disk is full.)"""
    array = np.ascontiguousarray(array)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def load_arrays(path: Path) -> dict[str, AnyArray]:
    """Read what `save_arrays` wrote. Raises DataError if it is not there."""
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise _lost(path, error) from error


def _lost(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}, which the tiles need, cannot be read: {error}.", "Start again with --overwrite.")


def _copy(path: Path, data: ScanDataset) -> MappedRows:
    """Copy the patterns of a scan to a file that can be mapped."""
    dtype = np.dtype(data.patterns.dtype)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        for part in slices_of(len(data), _BLOCK):
            file.write(np.ascontiguousarray(data.patterns[part]).data)
            release_pages(data.patterns)
    return MappedRows(str(path.absolute()), 0, dtype.str, tuple(data.patterns.shape))
