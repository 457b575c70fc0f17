"""The jobs of a scan in tiles, each in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary, slices_of
from ptychopinn.automatic import reconstruct_automatically
from ptychopinn.batch.plan import settings_from
from ptychopinn.config.automatic import AutomaticConfig, Freedom
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.data.subsampling import nearest_to_middle
from ptychopinn.errors import Cancelled
from ptychopinn.geometry import Canvas, Frame
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.monitor import Monitor
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers.engine import PartOrder, PassEngine
from ptychopinn.solvers.options import PassOptions, StepSchedule, default_batch_size
from ptychopinn.solvers.slow_phase import SlowPhaseGrid, multiply_by_phase, phase_gradients
from ptychopinn.stitching import COVERED, coverage_of, patch_weights
from ptychopinn.tiled.store import (
    COVERAGE,
    GRID,
    LAST,
    OBJECT,
    VELOCITY,
    TilePatterns,
    TileStore,
    load_arrays,
    save_arrays,
)
from ptychopinn.tiles import Tiling
from ptychopinn.typing import FloatArray
from ptychopinn.workflows import device_library

GRADIENTS, PHASE = "gradients.npz", "phase.npz"
_READ = 32  # patterns read at a time
MIDDLE_PATTERNS = 1024  # patterns that determine the probe


@dataclass(frozen=True, eq=False)
class _Tile:
    """A tile with its patterns and the model of the scan."""

    store: TileStore
    number: int
    library: ArrayLibrary

    @cached_property
    def patterns(self) -> Patterns:
        """Of core and halo."""
        return Patterns(self.store.scan(self.known.members), self.library)

    @cached_property
    def known(self) -> TilePatterns:
        """Members, places and roles of the patterns."""
        return self.store.tile(self.number)

    @cached_property
    def model(self) -> ScanModel:
        """The model of the scan for these patterns."""
        arrays, to_device = self.store.model(), self.library.from_host
        background = arrays.get("background")
        return ScanModel(
            to_device(arrays["probe"]),
            self.known.positions,
            background=None if background is None else to_device(background),
        )

    @property
    def core(self) -> Frame:
        """Its part of the object."""
        return self.store.cores[self.number]

    @property
    def frame(self) -> Frame:
        """Core and halo."""
        return self.store.frames[self.number]

    def read(self, round_name: str, name: str) -> Array:
        """An array of a round over core and halo, of the library."""
        return self.library.from_host(self.store.read(round_name, name, self.frame))

    def put(self, round_name: str, name: str, array: Array) -> None:
        """Write the core of an array over core and halo."""
        here, _ = self.frame.overlap(self.core)
        self.store.put(round_name, self.number, name, self.library.to_host(array)[here])

    def judge(self, obj: Array) -> list[float]:
        """What each judging pattern contributes to the square of the forward residual, times all their counts."""
        judges = self.known.judges
        if len(judges) == 0:
            return []
        likelihood = Likelihood(self.store.plan["likelihood"])
        residual = ForwardResidual(
            self.model, self.patterns, indices=judges, max_patterns=len(judges), likelihood=likelihood
        )
        shares: list[float] = (residual.shares(Canvas(obj, self.frame, self.library)) * self.counts).tolist()
        return shares

    @cached_property
    def counts(self) -> float:
        """Counts of all judging patterns."""
        xp, judges, total = self.library.xp, self.known.judges, 0.0
        for part in slices_of(len(judges), _READ):
            measured, _ = self.patterns.measured(self.patterns.amplitudes(judges[part]))
            total += float(xp.sum(measured * measured, dtype=xp.float64))
        return total


def solve_middle(store: str, monitor: Monitor) -> dict[str, Any]:
    """Write the model of a scan: probe and background that a reconstruction of its middle finds.

    Returns
    -------
    ``story``: what was done and why.
    """
    files = TileStore(store)
    middle = files.scan(nearest_to_middle(files.positions(), MIDDLE_PATTERNS))
    whole = fit_scaling(middle)
    allowed = (Freedom.PROBE, Freedom.MODES, Freedom.BACKGROUND)
    config = AutomaticConfig(may_free=tuple(one for one in allowed if one in files.plan["may_free"]))
    if not config.may_free:
        files.put_model(probe=probe_in_counts(middle, whole, follow_offset=True))
        return {"story": ["The probe is that of the scan."]}
    data = replace(middle, scaling=None)
    found = reconstruct_automatically(data, None, config, library=_library(files), monitor=monitor)
    if monitor.cancelled:
        raise Cancelled("The middle of the scan was cancelled.")
    result = found.reconstruction
    probe = result.probe * np.sqrt(whole.mean_counts / fit_scaling(data).mean_counts)
    arrays = {"probe": probe.astype(np.complex64)}
    if result.background is not None:
        arrays["background"] = np.fft.ifftshift(result.background).astype(np.float32)
    files.put_model(**arrays)
    return {"story": [f"{len(data)} patterns in the middle of the scan gave the probe.", *found.story]}


def begin_tile(store: str, number: int, after: str) -> dict[str, Any]:
    """Write coverage and flat object of a tile, and judge it."""
    files = TileStore(store)
    tile = _Tile(files, number, NUMPY)
    size, probe = files.plan["size"], files.model()["probe"]
    tiling = Tiling(tile.frame, NUMPY, tile.known.positions, size, NUMPY)
    tile.put(after, COVERAGE, coverage_of(tile.known.positions, patch_weights(probe, size), tiling))
    flat = np.ones(tile.frame.shape, np.complex64)
    tile.put(after, OBJECT, flat)
    return {"missed": tile.judge(flat), "counts": tile.counts}


def make_pass(  # noqa: PLR0913
    store: str,
    number: int,
    done: int,
    before: str,
    after: str,
    start: str,
    phase: bool,
    gradients: bool,
    monitor: Monitor,
) -> dict[str, Any]:
    """Make a pass over a tile, and judge it.

    Parameters
    ----------
    done:
        Number of passes before.
    before, after, start:
        Rounds to read from and to write to, and the one that has the coverage.
    phase:
        Whether to take off the slow phase of the round before first.
    gradients:
        Whether to measure the gradients of the next one.

    Returns
    -------
    ``missed`` of `_Tile.judge` after the pass, ``without`` and ``taken_off`` before and after the slow phase was taken
    off, and ``counts``.
    """
    files = TileStore(store)
    library = _library(files)
    with library.session() as computing:
        tile = _Tile(files, number, computing)
        obj = tile.read(before, OBJECT)
        momentum = None if done == 0 else (tile.read(before, VELOCITY), tile.read(before, LAST))
        found: dict[str, Any] = {}
        if phase:
            found["without"] = tile.judge(obj)
            angle = _phase_in(tile, files.folder / before / PHASE)
            obj, *rest = (multiply_by_phase(array, angle, computing) for array in (obj, *(momentum or ())))
            momentum = None if momentum is None else (rest[0], rest[1])
            found["taken_off"] = tile.judge(obj)
        engine = _engine(tile, Canvas(obj, tile.frame, computing), momentum, done)
        if engine.run(done, files.plan["passes"], monitor) is None:
            raise Cancelled("The pass was cancelled.")
        obj = engine.canvas.array
        tile.put(after, OBJECT, obj)
        for name, array in zip((VELOCITY, LAST), engine.momentum, strict=True):
            tile.put(after, name, array)
        if gradients:
            _measure_gradients(tile, obj, files.job_folder(after, number) / GRADIENTS, monitor)
        covered = tile.read(start, COVERAGE) > COVERED
        found["missed"] = tile.judge(computing.xp.where(covered, obj, computing.xp.ones_like(obj)))
        return {**found, "counts": tile.counts}


def _engine(tile: _Tile, canvas: Canvas, momentum: tuple[Array, Array] | None, done: int) -> PassEngine:
    plan, ranks = tile.store.plan, tile.known.ranks
    used, total, on_host = np.flatnonzero(ranks >= 0), plan["used"], tile.library.on_host
    # A device needs batches of many patterns, of one shape.
    batch_size = default_batch_size(total if on_host else len(used), plan["size"], on_host=on_host)
    options = PassOptions(StepSchedule(**plan["schedule"]), likelihood=Likelihood(plan["likelihood"]))
    order = PartOrder(ranks[used], total, seed=options.seed, done=done, batch_size=batch_size, full=not on_host)
    return PassEngine(tile.patterns, used, tile.model, canvas, options, tile.library, part=order, momentum=momentum)


def _measure_gradients(tile: _Tile, obj: Array, path: Path, monitor: Monitor) -> None:
    """Write the gradients of the slow phase at the patterns of the core."""
    slow, canvas = tile.known.slow, Canvas(obj, tile.frame, tile.library)
    found: tuple[FloatArray, FloatArray] | None = np.zeros((0, 2, 2)), np.zeros((0, 2))
    if len(slow):
        found = phase_gradients(tile.patterns, slow, tile.model, canvas, monitor)
    if found is None:
        raise Cancelled("The pass was cancelled.")
    save_arrays(path, numbers=tile.known.members[slow], hessian=found[0], slope=found[1])


def _phase_in(tile: _Tile, path: Path) -> Array:
    """A slow phase over core and halo."""
    grid, coefficients = grid_from(load_arrays(tile.store.folder / GRID)), load_arrays(path)["coefficients"]
    offset = np.subtract(tile.frame.origin, tile.store.frame.origin)
    return grid.phase(coefficients, tile.frame.shape, (int(offset[0]), int(offset[1])), tile.library)


def grid_from(arrays: Mapping[str, Any]) -> SlowPhaseGrid:
    """The grid of a slow phase in a file."""
    y, x = arrays["first"].tolist()
    down, across = arrays["nodes"].tolist()
    return SlowPhaseGrid((y, x), float(arrays["spacing"]), (down, across), arrays["chosen"])


def _library(files: TileStore) -> ArrayLibrary:
    settings = settings_from(files.plan["settings"])
    return device_library(files.plan["size"], settings.backend, settings.execution)
