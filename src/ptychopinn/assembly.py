"""Assemble the patches of a prediction into one object: place, synchronise, stitch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary, slices_of
from ptychopinn.config.infer import InferConfig, Synchronise
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.geometry import split_positions
from ptychopinn.interpolation import PatchShift
from ptychopinn.metrics.quality import RESIDUAL_PATTERNS, ForwardResidual
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.parallel import BackgroundThread
from ptychopinn.patch_store import PatchStore, PlacedPatches
from ptychopinn.reconstructor import PatchBatch, Prediction, every_pattern_once
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers.slow_phase import multiply_by_phase, slow_phase
from ptychopinn.stitching import StitchedObject, Stitcher, patch_weights, phase_factors
from ptychopinn.synchronise import Overlaps, measure_overlaps, solve_phases
from ptychopinn.tiles import Tiling
from ptychopinn.typing import ComplexArray, FloatArray, IntArray

_log = logging.getLogger(__name__)
_TETHER = 0.1  # AUTO tries this tether, no tether, and no synchronisation
_SMALL_OBJECT = 1 << 26  # bytes; candidates up to this size are stitched together
_SLOW_ROUNDS = 4  # maximum number of linear solves for the slow phase
_SETTLED_RATIO = 0.95  # stop when a round lowers the residual by less than 5 %: the next would gain the square of it


class PhaseRule(StrEnum):
    """How the phases of the patches were chosen."""

    NONE_NEEDED = "none needed"  # there were no patches
    OFF = "off"
    ON = "on"  # solved from the overlaps
    TETHERED = f"tethered by {_TETHER:g}"  # the same, with each patch pulled towards a real and positive mean


@dataclass(frozen=True)
class Synchronisation:
    """How the phases of an object's patches were chosen."""

    rule: PhaseRule  # rule for all patches
    slow_phase_solved: bool = False  # whether the slow phase of the object was solved afterwards

    def __str__(self) -> str:
        return f"{self.rule}, slow phase solved" if self.slow_phase_solved else str(self.rule)


@dataclass(frozen=True)
class Stages:
    """Settings, monitor and times of the stages of a reconstruction."""

    config: InferConfig
    monitor: Monitor = NULL_MONITOR  # gets progress, and may cancel
    judged: bool = True  # whether the result gets a verdict and warnings
    seconds: dict[str, float] = field(default_factory=dict)  # wall time of each stage so far

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent in the ``with`` block to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def assemble(
    prediction: Prediction,
    data: ScanDataset,
    tiling: Tiling,
    stages: Stages,
    pairs: Callable[[], IntArray] | None = None,
) -> tuple[StitchedObject, Synchronisation]:
    """Assemble the object of a prediction; also return how the phases of its patches were chosen.

    Parameters
    ----------
    prediction:
        Prediction for the scan; its batches are consumed.
    pairs:
        Waits for the result of `ptychopinn.synchronise.overlap_pairs`, if it is computed elsewhere.

    Raises
    ------
    PluginError
        If the prediction omits patterns, or has one twice.
    """
    library, size = prediction.library, prediction.patch_size
    if stages.config.synchronise is Synchronise.OFF and tiling.is_whole:
        with stages.timed("predict and stitch"):
            stitcher = Stitcher(patch_weights(library.to_host(prediction.probe), size), tiling.frame, library)
            for batch in every_pattern_once(prediction.batches, len(data)):
                stitcher.add(batch.patches, data.positions[batch.indices])
            return stitcher.take_result(), Synchronisation(PhaseRule.OFF)
    budget = stages.config.memory_budget_mb * 2**20
    with PatchStore(len(data), size, library, budget) as placed:
        with stages.timed("predict"):
            place_patches(prediction, data, placed)
        patterns = Patterns(data, library) if prediction.patterns is None else prediction.patterns
        known = None if pairs is None else pairs()
        return library.fit(lambda: synchronise(prediction.probe, patterns, placed, tiling, stages, known))


def place_patches(prediction: Prediction, data: ScanDataset, placed: PatchStore) -> None:
    """Move all patches to whole pixels. On the host, a batch is moved while the next is predicted."""
    shift = PatchShift(prediction.patch_size, prediction.library)

    def place(batch: PatchBatch) -> None:
        _, fractions = split_positions(data.positions[batch.indices], prediction.patch_size)
        moved = prediction.library.from_host(fractions)
        for block in slices_of(len(batch.indices), shift.at_a_time):
            placed.put(batch.indices[block], shift(batch.patches[block, ...], moved[block, ...]))

    batches = every_pattern_once(prediction.batches, len(data))
    if not prediction.library.on_host:
        for batch in batches:
            place(batch)
        return
    with BackgroundThread() as thread:
        before: Callable[[], None] | None = None
        for batch in batches:
            if before is not None:
                before()
            before = thread.submit(partial(place, batch))
        if before is not None:
            before()


def synchronise(
    probe: Array,
    patterns: Patterns,
    placed: PlacedPatches,
    tiling: Tiling,
    stages: Stages,
    pairs: IntArray | None = None,
) -> tuple[StitchedObject, Synchronisation]:
    """Stitch with the phases that explain the patterns best, among the candidates that the settings allow.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64 of the patterns' library, in counts.
    placed:
        (n, size, size) complex64, the patch of every pattern on whole pixels.
    pairs:
        Result of `ptychopinn.synchronise.overlap_pairs`, if it was computed already.

    Returns
    -------
    The object, of the tiling's object library, and how its phases were chosen.
    """
    config, monitor = stages.config, stages.monitor
    library, positions = patterns.library, patterns.data.positions
    size = placed.shape[-1]
    weights = patch_weights(library.to_host(probe), size)
    stitch = partial(_stitch, placed, positions, weights, tiling)
    if config.synchronise is Synchronise.OFF:
        with stages.timed("stitch"):
            (stitched,) = stitch([None], None)
        return stitched, Synchronisation(PhaseRule.OFF)
    monitor.report("synchronise", 0, 1)
    with stages.timed("synchronise"):
        corners, _ = split_positions(positions, size)
        overlaps = measure_overlaps(placed, corners, weights, library, pairs)
        free = solve_phases(overlaps, library=library)
        candidates: list[tuple[PhaseRule, ComplexArray | None]] = [(PhaseRule.ON, free)]
        if config.synchronise is Synchronise.AUTO:
            candidates += [(PhaseRule.TETHERED, _tether(overlaps, free, library)), (PhaseRule.OFF, None)]
        del overlaps
    monitor.report("synchronise", 1, 1)
    residual_of = ForwardResidual(ScanModel(probe, patterns.data.positions), patterns, max_patterns=RESIDUAL_PATTERNS)
    best: tuple[float, StitchedObject, PhaseRule] | None = None
    # Objects may be large: then they are stitched one at a time.
    together = len(candidates) if 8 * math.prod(tiling.frame.shape) <= _SMALL_OBJECT else 1
    for done in range(0, len(candidates), together):
        monitor.report("stitch", done, len(candidates))
        some = candidates[done : done + together]
        coverage = None if best is None else best[1].coverage
        with stages.timed("stitch"):
            objects = stitch([phases for _, phases in some], coverage)
        with stages.timed("judge"):
            for (rule, _), stitched in zip(some, objects, strict=True):
                residual = math.nan if len(candidates) == 1 else residual_of(stitched.canvas)
                _log.info("Synchronisation %s: forward residual %.4f.", rule, residual)
                if best is None or residual < best[0]:
                    best = (residual, stitched, rule)
            del stitched, objects
    monitor.report("stitch", len(candidates), len(candidates))
    assert best is not None  # there is always one candidate
    residual, stitched, rule = best
    if config.synchronise is not Synchronise.AUTO:
        return stitched, Synchronisation(rule)
    del best
    with stages.timed("slow phase"):
        stitched, solved, residual = _solve_slow_phase(residual, stitched, probe, patterns, residual_of, monitor)
    how = Synchronisation(rule, solved)
    _log.info("Synchronisation %s: forward residual %.4f.", how, residual)
    return stitched, how


def phases_by(rule: PhaseRule, overlaps: Overlaps) -> ComplexArray:
    """The phases of patches, (n,) complex128 of modulus 1, by a rule that needs overlaps."""
    free = solve_phases(overlaps)
    return _tether(overlaps, free, NUMPY) if rule is PhaseRule.TETHERED else free


def _tether(overlaps: Overlaps, free: ComplexArray, library: ArrayLibrary) -> ComplexArray:
    return solve_phases(overlaps, tether=_TETHER, start=free, library=library)


def _stitch(
    placed: PlacedPatches,
    positions: FloatArray,
    weights: FloatArray,
    tiling: Tiling,
    candidates: Sequence[ComplexArray | None],
    coverage: Array | None,
) -> list[StitchedObject]:
    """One object per candidate: the patches divided by its phases. All objects share one array of coverage."""
    library = tiling.library
    stitchers = [Stitcher(weights, tiling.frame, tiling.object_library) for _ in candidates]
    for tile in tiling.tiles:
        windows, members = tiling.windows(tile, positions, placed.shape[-1]), tile.members
        parts = stitchers if tiling.is_whole else [Stitcher(weights, tile.frame, library) for _ in candidates]
        shifted_weights = parts[0].weights
        for block in slices_of(len(windows), shifted_weights.at_a_time):
            some = windows[block]
            shifted = shifted_weights.at(some.fractions)
            weighted = placed[block if tiling.is_whole else members[block]] * shifted
            for number, (part, phases) in enumerate(zip(parts, candidates, strict=True)):
                turned = weighted if phases is None else weighted * phase_factors(phases[members[block]], library)
                part.add_weighted(turned, shifted if coverage is None and number == 0 else None, some)
        if not tiling.is_whole:
            for number, (stitcher, part) in enumerate(zip(stitchers, parts, strict=True)):
                stitcher.add_tile(part, coverage=coverage is None and number == 0)
    objects: list[StitchedObject] = []
    for stitcher in stitchers:
        objects.append(stitcher.take_result(coverage))
        coverage = objects[-1].coverage
    return objects


def _solve_slow_phase(
    residual: float,
    stitched: StitchedObject,
    probe: Array,
    patterns: Patterns,
    residual_of: ForwardResidual,
    monitor: Monitor,
) -> tuple[StitchedObject, bool, float]:
    """Remove the low-frequency phase error that synchronisation leaves, if that lowers the residual.

    The object may be changed in place, because it may be large. Overlaps determine the phases of neighbours, and their
    small errors add up over the scan. The place of a pattern on the detector determines the phase gradient itself.

    Returns
    -------
    The object, whether any slow phase was removed, and the residual.
    """
    library, covered, canvas = stitched.library, stitched.covered, stitched.canvas
    solved = False
    for done in range(_SLOW_ROUNDS):
        monitor.report("slow phase", done, _SLOW_ROUNDS)
        phase = slow_phase(patterns, ScanModel(probe, patterns.data.positions), canvas, monitor=monitor)
        if phase is None:
            break
        canvas = replace(canvas, array=multiply_by_phase(canvas.array, phase, library, where=covered))
        after = residual_of(canvas)
        if after >= residual:
            back = multiply_by_phase(canvas.array, phase, library, where=covered, sign=-1.0)
            canvas = replace(canvas, array=back)
            break
        settled, residual, solved = after > _SETTLED_RATIO * residual, after, True
        if settled:
            break
    monitor.report("slow phase", _SLOW_ROUNDS, _SLOW_ROUNDS)
    return replace(stitched, object=canvas.array), solved, residual
