"""The jobs of a scan in tiles, each in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.automatic import reconstruct_automatically
from ptychopinn.batch.plan import settings_from
from ptychopinn.config.automatic import AutomaticConfig, Freedom
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.data.subsampling import nearest_to_middle
from ptychopinn.errors import Cancelled
from ptychopinn.geometry import Canvas
from ptychopinn.monitor import Monitor
from ptychopinn.solvers.engine import PartOrder, PassEngine
from ptychopinn.solvers.options import PassOptions, StepSchedule, default_batch_size
from ptychopinn.solvers.slow_phase import SlowPhaseGrid
from ptychopinn.stitching import COVERED, coverage_of, patch_weights
from ptychopinn.tiled.network import load_network
from ptychopinn.tiled.store import (
    COVERAGE,
    GRID,
    LAST,
    OBJECT,
    START,
    VELOCITY,
    TileStore,
    load_arrays,
)
from ptychopinn.tiled.tile import OpenTile
from ptychopinn.tiles import Tiling
from ptychopinn.typing import IntArray
from ptychopinn.workflows import device_library

PHASE = "phase.npz"
MIDDLE_PATTERNS = 1024  # patterns that determine the probe
FITTED_BY_PATTERN = (Freedom.POSITIONS, Freedom.FLUX)


def solve_middle(store: str, monitor: Monitor) -> dict[str, Any]:
    """Reconstruct the middle of a scan, and store its probe and background for all tiles.

    Returns
    -------
    ``story``: what was done and why. ``rule``: by which rule the phases of the network's patches are synchronised; None
    if passes start from a flat object. ``free``: those of `FITTED_BY_PATTERN` that explained patterns better.
    """
    files = TileStore(store)
    middle = files.scan(nearest_to_middle(files.positions(), MIDDLE_PATTERNS))
    whole = fit_scaling(middle)
    allowed = (Freedom.PROBE, Freedom.MODES, Freedom.BACKGROUND, *FITTED_BY_PATTERN)
    config = AutomaticConfig(may_free=tuple(one for one in allowed if one in files.plan["may_free"]))
    network = None if files.plan["network"] is None else load_network(files)
    if not config.may_free and network is None:
        files.put_model(probe=probe_in_counts(middle, whole, follow_offset=True))
        return {"story": ["The probe is that of the scan."], "rule": None, "free": []}
    data = replace(middle, scaling=None)
    library = _library(files) if network is None else NUMPY  # a network has its own
    found = reconstruct_automatically(data, network, config, library=library, monitor=monitor)
    if monitor.cancelled:
        raise Cancelled("The middle of the scan was cancelled.")
    result = found.reconstruction
    probe = result.probe * np.sqrt(whole.mean_counts / fit_scaling(data).mean_counts)
    arrays = {"probe": probe.astype(np.complex64)}
    if result.background is not None:
        arrays["background"] = np.fft.ifftshift(result.background).astype(np.float32)
    files.put_model(**arrays)
    story = [f"{len(data)} patterns in the middle of the scan gave the probe.", *found.story]
    rule = None if found.from_flat else result.synchronised.rule
    return {"story": story, "rule": rule, "free": [one for one in FITTED_BY_PATTERN if one in found.freed]}


def begin_tile(store: str, number: int, after: str) -> dict[str, Any]:
    """Write coverage and a flat object of a tile, and return what each judging pattern adds to its residual."""
    files = TileStore(store)
    tile = OpenTile(files, number, NUMPY)
    size, probe = files.plan["size"], files.model()["probe"]
    tiling = Tiling(tile.frame, NUMPY, tile.known.positions, size, NUMPY)
    tile.put(after, COVERAGE, coverage_of(tile.known.positions, patch_weights(probe, size), tiling))
    flat = np.ones(tile.frame.shape, np.complex64)
    tile.put(after, OBJECT, flat)
    return {"missed": tile.judge(flat), "counts": tile.counts}


@dataclass(frozen=True)
class PassStart:
    """What passes start from, and what is fitted to the patterns after each."""

    predicted: bool  # whether a network drew the object
    free: tuple[Freedom, ...]

    def schedule(self, plan: Mapping[str, Any]) -> StepSchedule:
        """The steps of the passes."""
        return StepSchedule(**plan["schedules"]["predicted" if self.predicted else "flat"])


@dataclass(frozen=True)
class PassPlan:
    """What is done in a pass over the tiles."""

    done: int  # number of passes before it
    before: str  # the round that it goes on from
    phase: bool  # whether to correct the slow phase of that round first
    gradients: bool  # whether to measure the gradients of the next slow phase


def make_pass(
    store: str, number: int, after: str, start: Mapping[str, Any], plan: Mapping[str, Any], monitor: Monitor
) -> dict[str, Any]:
    """Make a pass over a tile, and judge it.

    Parameters
    ----------
    after:
        The round to write to.
    start, plan:
        Fields of `PassStart` and `PassPlan`.

    Returns
    -------
    ``missed`` of `OpenTile.judge` after the pass, ``without`` and ``taken_off`` before and after the slow phase was
    taken off, and ``counts``.
    """
    files, common, now = TileStore(store), PassStart(**start), PassPlan(**plan)
    library = _library(files)
    with library.session() as computing:
        tile = OpenTile(files, number, computing, fitted=now.before)
        options = PassOptions(
            common.schedule(files.plan),
            update_positions=Freedom.POSITIONS in common.free,
            update_flux=Freedom.FLUX in common.free,
            likelihood=Likelihood(files.plan["likelihood"]),
        )
        engine, used = _engine(tile, now, options)
        found: dict[str, Any] = {}
        if now.phase:
            found["without"] = tile.judge(engine.canvas.array)
            engine.multiply_by_phase(_phase_in(tile, files.folder / now.before / PHASE))
            found["taken_off"] = tile.judge(engine.canvas.array)
        if engine.run(now.done, files.plan["passes"], monitor) is None:
            raise Cancelled("The pass was cancelled.")
        obj = engine.canvas.array
        tile.put(after, OBJECT, obj)
        for name, array in zip((VELOCITY, LAST), engine.momentum, strict=True):
            tile.put(after, name, array)
        if common.free and engine.figures is not None:
            tile.put_figures(after, used, engine.figures)
        if now.gradients:
            tile.measure_gradients(obj, after, monitor)
        covered = tile.read(START, COVERAGE) > COVERED
        found["missed"] = tile.judge(computing.xp.where(covered, obj, computing.xp.ones_like(obj)))
        return {**found, "counts": tile.counts}


def _engine(tile: OpenTile, now: PassPlan, options: PassOptions) -> tuple[PassEngine, IntArray]:
    """An engine that goes on from an earlier round, and the patterns that it uses."""
    plan, ranks = tile.store.plan, tile.known.ranks
    used, total, on_host = np.flatnonzero(ranks >= 0), plan["used"], tile.library.on_host
    # On a GPU batches have many patterns each, and one shape.
    batch_size = default_batch_size(total if on_host else len(used), plan["size"], on_host=on_host)
    order = PartOrder(ranks[used], total, seed=options.seed, done=now.done, batch_size=batch_size, full=not on_host)
    canvas = Canvas(tile.read(now.before, OBJECT), tile.frame, tile.library)
    engine = PassEngine(tile.patterns, used, tile.model, canvas, options, part=order)
    if now.done > 0:
        engine.momentum = tile.read(now.before, VELOCITY), tile.read(now.before, LAST)
    return engine, used


def _phase_in(tile: OpenTile, path: Path) -> Array:
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
