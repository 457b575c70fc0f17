"""From a trained reconstructor and a scan to an object: predict, synchronise, stitch, refine if asked, and judge."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ptychopinn.config.infer import InferConfig, Synchronise
from ptychopinn.config.model import ModelConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.rows import Rows
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.data.thinning import one_a_cell
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.interpolation import place_on_pixels, split_positions
from ptychopinn.metrics.alignment import box_of
from ptychopinn.metrics.quality import FLATNESS_LIMIT, ForwardResidual, flatness, forward_residual
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.parallel import Aside
from ptychopinn.reconstructor import PatchBatch, Prediction, Reconstructor
from ptychopinn.refinement import RESIDUAL_PATTERNS, Refined, refine
from ptychopinn.scratch import ScratchRows
from ptychopinn.simulate.probes import probe_width_px
from ptychopinn.solvers.phases import slow_phase, turn
from ptychopinn.stitching import Frame, Stitched, Stitcher, coverage_of, divisors, patch_weights
from ptychopinn.synchronise import measure_overlaps, solve_phases
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray

_log = logging.getLogger(__name__)
_TETHER = 0.1  # that AUTO tries, besides free synchronisation and none at all
_SMALL_OBJECT = 1 << 26  # bytes: several of them at a time matter to nobody
_SLOW_ROUNDS = 4  # of a slow phase; each is one linear solve
_SETTLED = 0.95  # of the residual: a round that gains less is the last, for the next gains its square
_SLOW = ", slow phase solved"


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """An object and what is known of how good it is.

    Attributes
    ----------
    object:
        (H, W) complex64; 1 + 0j where no pattern covers it.
    coverage:
        (H, W) float32, weights in units of the brightest point of one probe.
    frame:
        Where the array lies in the scan's positions.
    probe:
        (modes, N, N) complex64, in counts: with it the object predicts the patterns.
    positions:
        (n, 2) float64 (y, x), pixels: those of the scan, or as refinement left them.
    residual:
        R = sqrt(sum (A - A_model)^2 / sum A^2) over evenly spread patterns.
    flatness:
        Deviation of the complex object inside the scan box; NaN where the scan has no such box.
    synchronised:
        How the phases of the patches were set.
    placed, dropped:
        Predicted patches placed, and those that fell outside the frame.
    seconds:
        Stage name to wall time.
    warnings:
        What a user should know, as sentences.
    refined:
        What refinement kept and how it changed the residual; None where it was not asked for.
    """

    object: ComplexArray
    coverage: AnyArray
    frame: Frame
    probe: ComplexArray
    positions: FloatArray
    residual: float
    flatness: float
    synchronised: str
    placed: int
    dropped: int
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]
    refined: Refined | None = None


def reconstruct(
    reconstructor: Reconstructor,
    data: ScanDataset,
    config: InferConfig | None = None,
    *,
    monitor: Monitor = NULL_MONITOR,
) -> Reconstruction:
    """Reconstruct a scan.

    Parameters
    ----------
    reconstructor:
        A trained one.
    data:
        The scan, or several of one object. With an ``object_guess`` the object has its frame, else that of the box of
        patches.
    config:
        How; defaults when None.
    monitor:
        Told of progress, asked whether to stop.

    Returns
    -------
    Reconstruction
        Memory is that of the object, of one batch, and of the patches up to ``memory_budget_mb`` while their phases are
        solved; beyond it they wait in a scratch file. A refinement that is cancelled keeps the best so far.

    Raises
    ------
    ConfigError
        As `check_infer`.
    DataError
        If the scan is empty.
    Cancelled
        If the monitor was cancelled before there was an object.
    ResourceError
        If memory or the disk of the scratch file do not suffice.
    """
    if len(data) == 0:
        raise DataError("The scan has no patterns.", "Give a scan with at least one.")
    data.tell_of_scans()
    config = config or InferConfig()
    start = time.perf_counter()
    seen = data
    if config.predict_overlap is not None:
        check_infer(reconstructor.model, config)
        seen = _thinned(data, config.predict_overlap, reconstructor.model.patch_size)
    prediction = reconstructor.infer(seen, config, monitor=monitor)
    frame = (
        Frame(data.object_guess.shape)
        if data.object_guess is not None
        else Frame.around(data.positions, prediction.patch_size)
    )
    seconds: dict[str, float] = {}
    if config.synchronise is Synchronise.OFF:
        stitcher = Stitcher(patch_weights(prediction.probe, prediction.patch_size), frame)
        for batch in prediction.batches:
            stitcher.add(batch.patches, seen.positions[batch.indices])
        seconds["predict and stitch"] = time.perf_counter() - start
        stitched, how = stitcher.finish(), "off"
    else:
        with patch_rows(prediction.patch_size, config.memory_budget_mb, len(seen)) as placed:
            _place(prediction, seen, placed)
            seconds["predict"] = time.perf_counter() - start
            stitched, how = synchronised(prediction.probe, seen, placed, frame, config, seconds, monitor)
    predicted = stitched.coverage
    if seen is not data:
        # The passes change what any pattern sees; where no patch lies they begin from the empty object.
        begun = time.perf_counter()
        weights = patch_weights(prediction.probe, prediction.patch_size)
        stitched = replace(stitched, coverage=coverage_of(data.positions, weights, frame))
        seconds["cover"] = time.perf_counter() - begun
    found = finished(stitched, how, prediction.probe, data, config, seconds, monitor)
    if found.refined is not None and found.refined.passes_kept == 0:
        found = replace(found, coverage=predicted)  # what no patch covers was not seen after all
    return found


def _place(prediction: Prediction, data: ScanDataset, placed: ScratchRows) -> None:
    """Put all patches on whole pixels, each batch while the next is predicted."""

    def place(batch: PatchBatch) -> None:
        _, fractions = split_positions(data.positions[batch.indices], prediction.patch_size)
        placed[batch.indices] = place_on_pixels(batch.patches, fractions)

    with Aside() as aside:
        before: Callable[[], None] | None = None
        for batch in prediction.batches:
            if before is not None:
                before()
            before = aside.begin(partial(place, batch))
        if before is not None:
            before()


def check_infer(model: ModelConfig, config: InferConfig) -> None:
    """Refuse settings that do not go with a network.

    Raises
    ------
    ConfigError
        With ``predict_overlap`` and a network that sees several patterns at a time.
    """
    if config.predict_overlap is not None and model.patterns_per_patch > 1:
        raise ConfigError(
            "This network predicts a patch from several neighbouring patterns: predict_overlap would change which.",
            "Leave it out, or use a network of one pattern a patch (architecture fast).",
        )


def _thinned(data: ScanDataset, overlap: float, patch_size: int) -> ScanDataset:
    """Patterns that overlap their neighbours by about so much of the probe's width, all over the scan."""
    scaling = fit_scaling(data)  # of all: the passes and the judging need the probe in their counts
    spacing = min((1 - overlap) * probe_width_px(data.probe), patch_size / 2)
    chosen = one_a_cell(data.positions, spacing)
    _log.info("The network sees %d of %d patterns, the passes all.", len(chosen), len(data))
    return replace(data.select(chosen), scaling=scaling)


def finished(
    stitched: Stitched,
    how: str,
    probe: ComplexArray,
    data: ScanDataset,
    config: InferConfig,
    seconds: dict[str, float],
    monitor: Monitor = NULL_MONITOR,
) -> Reconstruction:
    """A stitched object, refined if that is asked for, and judged.

    Parameters
    ----------
    stitched, how:
        From `synchronised`.
    probe:
        (modes, N, N) complex64, in counts.
    data, config, monitor:
        As in `reconstruct`.
    seconds:
        Of the stages before; those of this one are added.
    """
    refined = None
    if config.refine > 0:
        start = time.perf_counter()
        found = refine(
            data,
            probe,
            stitched.object,
            stitched.frame,
            passes=config.refine,
            covered=stitched.covered,
            slow_phase_solved=config.synchronise is Synchronise.AUTO,
            update_probe=config.refine_probe,
            update_positions=config.refine_positions,
            likelihood=config.refine_likelihood,
            memory_budget_mb=config.memory_budget_mb,
            monitor=monitor,
        )
        seconds["refine"] = time.perf_counter() - start
        stitched, probe, refined = replace(stitched, object=found.object), found.probe, found.facts
        data = replace(data, positions=found.positions)
    start = time.perf_counter()
    judged = _judged(stitched, probe, refined, data, how, seconds)
    seconds["judge"] = time.perf_counter() - start
    return replace(judged, seconds=dict(seconds))


def _judged(
    stitched: Stitched,
    probe: ComplexArray,
    refined: Refined | None,
    data: ScanDataset,
    how: str,
    seconds: Mapping[str, float],
) -> Reconstruction:
    """A stitched object with its figures and warnings."""
    warnings = []
    residual = forward_residual(stitched.object, stitched.frame.origin, probe, data, max_patterns=RESIDUAL_PATTERNS)
    box = box_of(data.positions - np.asarray(stitched.frame.origin), stitched.object.shape)
    flat = math.nan if box.is_empty else flatness(stitched.object, box)
    if flat < FLATNESS_LIMIT:
        warnings.append(
            f"The object is flat: it deviates by {flat:.4f} inside the scan box, less than {FLATNESS_LIMIT}. "
            "Training may have collapsed; lower --learning-rate or train longer."
        )
    if stitched.dropped:
        count = stitched.placed + stitched.dropped
        warnings.append(f"{stitched.dropped} of {count} patches lie outside the frame of objectGuess.")
    if refined is not None and refined.passes_done < refined.passes_asked:
        warnings.append(
            f"Refinement was cancelled after {refined.passes_done} of {refined.passes_asked} passes; "
            "the best so far is kept."
        )
    elif refined is not None and refined.passes_kept == 0:
        warnings.append(
            "No pass of the refinement was kept, for none lowered the forward residual by more than chance: the probe "
            "may be wrong, or the prediction has all that few photons tell."
        )
    for warning in warnings:
        _log.warning("%s", warning)
    return Reconstruction(
        object=stitched.object,
        coverage=stitched.coverage,
        frame=stitched.frame,
        probe=probe,
        positions=data.positions,
        residual=residual,
        flatness=flat,
        synchronised=how,
        placed=stitched.placed,
        dropped=stitched.dropped,
        seconds=dict(seconds),
        warnings=tuple(warnings),
        refined=refined,
    )


def patch_rows(patch_size: int, budget_mb: int, expected: int | None = None) -> ScratchRows:
    """A place for patches, (n, n) complex64 each, until their phases are known; beyond the budget a scratch file."""
    return ScratchRows((patch_size, patch_size), np.complex64, budget_bytes=budget_mb * 2**20, expected=expected)


def synchronised(
    probe: ComplexArray,
    data: ScanDataset,
    placed: AnyArray | Rows | ScratchRows,
    frame: Frame,
    config: InferConfig,
    seconds: dict[str, float],
    monitor: Monitor = NULL_MONITOR,
) -> tuple[Stitched, str]:
    """Stitch with the phases that explain the patterns best, of those the configuration allows.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64, in counts.
    data:
        The scan.
    placed:
        (n, size, size) complex64, every pattern's patch on whole pixels.
    frame:
        Of the object.
    config:
        How.
    seconds:
        Gets the time of each stage.
    monitor:
        Told of progress.

    Returns
    -------
    The object, and how its phases were set.
    """
    clock = _Clock(seconds)
    size = placed.shape[-1]
    weights = patch_weights(probe, size)
    corners, fractions = split_positions(data.positions, size)
    if config.synchronise is Synchronise.OFF:
        (stitched,) = _stitch(placed, corners, fractions, weights, frame, [None], None)
        clock.add("stitch")
        return stitched, "off"
    monitor.report("synchronise", 0, 1)
    overlaps = measure_overlaps(placed, corners, weights)
    free = solve_phases(overlaps)
    candidates: list[tuple[str, ComplexArray | None]] = [("on", free)]
    if config.synchronise is Synchronise.AUTO:
        tethered = solve_phases(overlaps, tether=_TETHER, start=free)
        candidates += [(f"tethered by {_TETHER:g}", tethered), ("off", None)]
    del overlaps
    monitor.report("synchronise", 1, 1)
    clock.add("synchronise")
    residual_of = ForwardResidual(probe, data, max_patterns=RESIDUAL_PATTERNS)
    best: tuple[float, Stitched, str] | None = None
    # An object may be large: then never more of them than are needed.
    together = len(candidates) if 8 * math.prod(frame.shape) <= _SMALL_OBJECT else 1
    for done in range(0, len(candidates), together):
        monitor.report("stitch", done, len(candidates))
        some = candidates[done : done + together]
        coverage = None if best is None else best[1].coverage
        objects = _stitch(placed, corners, fractions, weights, frame, [phases for _, phases in some], coverage)
        clock.add("stitch")
        for (how, _), stitched in zip(some, objects, strict=True):
            residual = math.nan if len(candidates) == 1 else residual_of(stitched.object, frame.origin)
            _log.info("Synchronisation %s: forward residual %.4f.", how, residual)
            if best is None or residual < best[0]:
                best = (residual, stitched, how)
        del stitched, objects
        clock.add("judge")
    monitor.report("stitch", len(candidates), len(candidates))
    assert best is not None  # there is always one candidate
    if config.synchronise is not Synchronise.AUTO:
        return best[1], best[2]
    how = _without_slow_error(*best, probe, data, residual_of, monitor)
    clock.add("slow phase")
    return best[1], how


class _Clock:
    """Adds up the time between its calls."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, time.perf_counter()

    def add(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now


def _stitch(
    placed: AnyArray | Rows | ScratchRows,
    corners: IntArray,
    fractions: FloatArray,
    weights: FloatArray,
    frame: Frame,
    candidates: Sequence[ComplexArray | None],
    coverage: FloatArray | None,
) -> list[Stitched]:
    """An object for each candidate, the patches divided by its phases; all have one array of coverage."""
    first = Stitcher(weights, frame, coverage)
    stitchers = [first, *(Stitcher(weights, frame, first.coverage) for _ in candidates[1:])]
    for low in range(0, len(corners), first.weights.at_a_time):
        block = slice(low, low + first.weights.at_a_time)
        lit = first.weights.at(fractions[block])
        patches: ComplexArray = np.asarray(placed[block])
        weighted = patches * lit
        for stitcher, phases in zip(stitchers, candidates, strict=True):
            turned = weighted if phases is None else weighted * divisors(phases[block])
            stitcher.add_weighted(turned, lit, corners[block])
    return [stitcher.finish() for stitcher in stitchers]


def _without_slow_error(
    residual: float,
    stitched: Stitched,
    how: str,
    probe: ComplexArray,
    data: ScanDataset,
    residual_of: ForwardResidual,
    monitor: Monitor,
) -> str:
    """Take off the slow phase by which patches drifted from their neighbours, as far as that lowers the residual.

    The object is changed in place, for it may be large; returns how its phases are set now.

    Overlaps tell neighbours' phases, and small errors of them add up over the scan; where the pattern lies on the
    detector tells the gradient of the phase itself.
    """
    covered = stitched.covered
    for done in range(_SLOW_ROUNDS):
        monitor.report("slow phase", done, _SLOW_ROUNDS)
        phase = slow_phase(data, stitched.object, stitched.frame.origin, probe, monitor=monitor)
        if phase is None:
            break
        turn(stitched.object, phase, covered)
        after = residual_of(stitched.object, stitched.frame.origin)
        if after >= residual:
            turn(stitched.object, -phase, covered)
            break
        settled, residual = after > _SETTLED * residual, after
        how = how if how.endswith(_SLOW) else how + _SLOW
        if settled:
            break
    monitor.report("slow phase", _SLOW_ROUNDS, _SLOW_ROUNDS)
    _log.info("Synchronisation %s: forward residual %.4f.", how, residual)
    return how
