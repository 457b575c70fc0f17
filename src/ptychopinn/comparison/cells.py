"""The cells of a study and their pairs of scans, two separate parts of one object."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np

from ptychopinn.comparison.scans import ScanSource, write_central
from ptychopinn.config.reading import ReadOptions
from ptychopinn.config.simulation import ScanKind, SimulationConfig
from ptychopinn.config.study import StudyConfig
from ptychopinn.data.io import write_scan
from ptychopinn.digests import digest_of
from ptychopinn.errors import ConfigError
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.simulate import simulate_probe, simulate_scan
from ptychopinn.simulate.scan import step_px

FORMAT = 1  # of the scans; a new number invalidates all old ones


@dataclass(frozen=True)
class Point:
    """One value of each axis, without seed and repeat."""

    photons: float
    overlap: float
    train_patterns: int | None
    gridsize: int | None


@dataclass(frozen=True)
class Cell:
    """A point with a seed of its scans and the number of the repeat."""

    point: Point
    seed: int
    repeat: int

    @property
    def name(self) -> str:
        """Name for logs and progress."""
        facts = {**asdict(self.point), "seed": self.seed, "repeat": self.repeat}
        return ", ".join(f"{key} {value:g}" for key, value in facts.items() if value is not None)


def cells_of(config: StudyConfig) -> Iterator[Cell]:
    """All cells, ordered so that those with the same scans follow each other."""
    for photons, overlap, seed in product(config.photons, config.overlap, config.seeds):
        for patterns, gridsize in product(config.train_patterns, config.gridsize):
            for repeat in range(config.repeats):
                yield Cell(Point(photons, overlap, patterns, gridsize), seed, repeat)


def check_simulation(simulation: SimulationConfig) -> None:
    """Refuse simulation settings that the study sets itself, or whose scans cannot be split.

    Raises
    ------
    ConfigError
        With the names of these settings.
    """
    theirs = {"nphotons": "photons", "overlap": "overlap", "step_px": "overlap", "seed": "seeds"}
    if given := [f"{name} (use {theirs[name]} of the study)" for name in theirs if name in simulation.model_fields_set]:
        raise ConfigError(f"The study sets {', '.join(given)}.", "Leave it out of the simulation.")
    if simulation.scan_kind is ScanKind.SPIRAL:
        raise ConfigError("A spiral scan has no rows at which to split it.", "Use scan_kind raster or jittered.")
    if simulation.object_shape is not None:
        raise ConfigError("object_shape cannot hold scans of every overlap.", "Leave it out of the simulation.")


def scans_of(
    cell: Cell, simulation: SimulationConfig, folder: Path, monitor: Monitor = NULL_MONITOR
) -> dict[str, ScanSource]:
    """The training and the test scan of a cell; existing files are used.

    One object is scanned in ``2 rows + gap`` rows. The first ``rows`` are the training scan, the last ``rows`` the test
    scan. The gap is so wide that no windows of the two parts overlap.

    ``rows`` and ``cols`` of ``simulation`` are those of each part. The folder is for the scans of all cells; their
    names are hashes of their content.
    """
    point = cell.point
    fields = {**simulation.model_dump(), "nphotons": point.photons, "overlap": point.overlap, "seed": cell.seed}
    part = SimulationConfig.model_validate(fields)
    probe = simulate_probe(part.probe_kind, part.N, photons=part.nphotons, modes=part.probe_modes)
    gap = math.ceil((part.N + 1 + 2 * part.effective_jitter_px) / step_px(part, probe)) - 1
    rows, cols = part.rows, part.cols
    whole = part.model_copy(update={"rows": 2 * rows + max(gap, 0)})
    key = digest_of({"format": FORMAT, "part": part.model_dump(mode="json")})[:16]
    paths = {name: folder / f"{key}-{name}.npz" for name in ("train", "test")}
    if not all(path.is_file() for path in paths.values()):
        data = simulate_scan(whole, monitor=monitor)
        first = np.arange(rows * cols)
        write_scan(paths["train"], data.select(first))
        write_scan(paths["test"], data.select(first + len(data) - rows * cols))
    if point.train_patterns is not None:
        few = folder / f"{key}-train-{point.train_patterns}.npz"
        if few.is_file() or write_central(paths["train"], point.train_patterns, few, ReadOptions()):
            paths["train"] = few
    return {name: ScanSource.of(path, None, ReadOptions()) for name, path in paths.items()}
