"""From a trained reconstructor and a scan to an object: predict, synchronise, stitch, refine if asked, and judge."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary, slices_of
from ptychopinn.config.infer import InferConfig, Synchronise
from ptychopinn.config.model import ModelConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.data.subsampling import thin_positions
from ptychopinn.errors import ConfigError, DataError, PluginError
from ptychopinn.geometry import Frame, Windows, split_positions
from ptychopinn.interpolation import PatchShift
from ptychopinn.metrics.alignment import scan_box
from ptychopinn.metrics.quality import FLATNESS_LIMIT, ForwardResidual, flatness
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.parallel import BackgroundThread
from ptychopinn.patch_store import PatchStore, PlacedPatches
from ptychopinn.reconstructor import PatchBatch, Prediction, Reconstructor
from ptychopinn.refinement import RESIDUAL_PATTERNS, RefinementSummary, RefineOptions, refine
from ptychopinn.simulate.probes import probe_width_px
from ptychopinn.solvers.slow_phase import multiply_by_phase, slow_phase
from ptychopinn.stitching import StitchedObject, Stitcher, coverage_of, patch_weights, phase_factors
from ptychopinn.synchronise import measure_overlaps, overlap_pairs, solve_phases
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray

_log = logging.getLogger(__name__)
_TETHER = 0.1  # that AUTO tries, besides free synchronisation and none at all
_SMALL_OBJECT = 1 << 26  # bytes: several of them at a time matter to nobody
_OBJECT_BYTES = 56  # a pixel of the object in the passes: it, two of its past, sums, light, coverage
_SLOW_ROUNDS = 4  # of a slow phase; each is one linear solve
_SETTLED = 0.95  # of the residual: a round that gains less is the last, for the next gains its square


class PhaseRule(StrEnum):
    """How the phases of the patches were set."""

    NONE_NEEDED = "none needed"  # there were no patches
    OFF = "off"
    ON = "on"  # solved from the overlaps
    TETHERED = f"tethered by {_TETHER:g}"  # the same, pulled towards a real and positive mean of each


@dataclass(frozen=True)
class Synchronisation:
    """How the phases of an object's patches were set.

    Attributes
    ----------
    rule:
        For every patch.
    slow_phase_solved:
        Whether the slow phase of the object was solved after it.
    """

    rule: PhaseRule
    slow_phase_solved: bool = False

    def __str__(self) -> str:
        return f"{self.rule}, slow phase solved" if self.slow_phase_solved else str(self.rule)


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
    synchronised: Synchronisation
    placed: int
    dropped: int
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]
    refined: RefinementSummary | None = None


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
    PluginError
        If the reconstructor leaves patterns out.
    Cancelled
        If the monitor was cancelled before there was an object.
    ResourceError
        If memory or the disk of the scratch file do not suffice.
    """
    if len(data) == 0:
        raise DataError("The scan has no patterns.", "Give a scan with at least one.")
    data.log_scan_count()
    config = config or InferConfig()
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
    library = prediction.library
    if not library.on_host and _OBJECT_BYTES * math.prod(frame.shape) > library.budget_bytes:
        height, width = frame.shape
        _log.warning(
            "An object of %d x %d pixels does not fit beside its passes on %s; the host works on it.",
            height,
            width,
            library,
        )
        prediction = prediction.on_host()
        library = prediction.library
    seconds: dict[str, float] = {}
    with library.session():
        stitched, how = _predict_and_stitch(prediction, seen, frame, config, seconds, monitor)
        predicted = stitched.coverage
        if seen is not data:
            # The passes change what any pattern sees; where no patch lies they begin from the empty object.
            begun = time.perf_counter()
            weights = patch_weights(library.to_host(prediction.probe), prediction.patch_size)
            stitched = replace(stitched, coverage=coverage_of(data.positions, weights, frame, library))
            seconds["cover"] = time.perf_counter() - begun
        patterns = prediction.patterns
        if patterns is None or seen is not data:
            patterns = patterns_to_refine(data, library, config)
        found = library.fit(
            lambda: refine_and_assess(stitched, how, prediction.probe, patterns, config, seconds, monitor)
        )
        if found.refined is not None and found.refined.passes_kept == 0:
            coverage = np.asarray(library.to_host(predicted))
            found = replace(found, coverage=coverage)  # what no patch covers was not seen after all
        return found


def _predict_and_stitch(
    prediction: Prediction,
    data: ScanDataset,
    frame: Frame,
    config: InferConfig,
    seconds: dict[str, float],
    monitor: Monitor,
) -> tuple[StitchedObject, Synchronisation]:
    """The object of a prediction, and how the phases of its patches were set; adds the time of each stage."""
    start = time.perf_counter()
    library, size = prediction.library, prediction.patch_size
    if config.synchronise is Synchronise.OFF:
        stitcher = Stitcher(patch_weights(library.to_host(prediction.probe), size), frame, library)
        for batch in _every_pattern_once(prediction.batches, len(data)):
            stitcher.add(batch.patches, data.positions[batch.indices])
        seconds["predict and stitch"] = time.perf_counter() - start
        return stitcher.take_result(), Synchronisation(PhaseRule.OFF)
    budget = config.memory_budget_mb * 2**20
    with BackgroundThread() as background, PatchStore(len(data), size, library, budget) as placed:
        corners, _ = split_positions(data.positions, size)
        # While a device predicts, the host has time for what depends on positions alone.
        pairs = None if library.on_host else background.submit(partial(overlap_pairs, corners, size))
        _place(prediction, data, placed)
        seconds["predict"] = time.perf_counter() - start
        patterns = Patterns(data, library) if prediction.patterns is None else prediction.patterns
        known = None if pairs is None else pairs()
        return library.fit(
            lambda: synchronise(prediction.probe, patterns, placed, frame, config, seconds, monitor, known)
        )


def patterns_to_refine(data: ScanDataset, library: ArrayLibrary, config: InferConfig) -> Patterns:
    """The patterns of a scan for the passes of refinement; what is used once need not be kept on the host."""
    return Patterns(data, library, config.memory_budget_mb * 2**20 if config.refine > 1 else 0)


def _every_pattern_once(batches: Iterator[PatchBatch], count: int) -> Iterator[PatchBatch]:
    """The batches of a prediction; a backend that leaves a pattern out, or predicts one twice, is refused."""
    times = np.zeros(count, np.int64)
    for batch in batches:
        np.add.at(times, batch.indices, 1)
        yield batch
    if (times != 1).any():
        raise PluginError(
            f"The backend predicted {int((times > 0).sum())} of {count} patterns, {int((times > 1).sum())} of them "
            "more than once.",
            "Use another backend; this one does not keep to the protocol. Its conformance kit shows where.",
        )


def _place(prediction: Prediction, data: ScanDataset, placed: PatchStore) -> None:
    """Put all patches on whole pixels, on the host each batch while the next is predicted."""
    shift = PatchShift(prediction.patch_size, prediction.library)

    def place(batch: PatchBatch) -> None:
        _, fractions = split_positions(data.positions[batch.indices], prediction.patch_size)
        moved = prediction.library.from_host(fractions)
        for block in slices_of(len(batch.indices), shift.at_a_time):
            placed.put(batch.indices[block], shift(batch.patches[block, ...], moved[block, ...]))

    batches = _every_pattern_once(prediction.batches, len(data))
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
    chosen = thin_positions(data.positions, spacing)
    _log.info("The network sees %d of %d patterns, the passes all.", len(chosen), len(data))
    return replace(data.select(chosen), scaling=scaling)


def refine_and_assess(
    stitched: StitchedObject,
    how: Synchronisation,
    probe: Array,
    patterns: Patterns,
    config: InferConfig,
    seconds: dict[str, float],
    monitor: Monitor = NULL_MONITOR,
) -> Reconstruction:
    """A stitched object, refined if that is asked for, and assessed.

    Parameters
    ----------
    stitched, how:
        From `synchronise`.
    probe:
        (modes, N, N) complex64 of the patterns' library, in counts.
    patterns:
        Of the whole scan.
    config, monitor:
        As in `reconstruct`.
    seconds:
        Of the stages before; those of this one are added.
    """
    summary, positions = None, patterns.data.positions
    if config.refine > 0:
        start = time.perf_counter()
        options = RefineOptions(config.refine, config.refine_probe, config.refine_positions, config.refine_likelihood)
        found = refine(
            patterns,
            probe,
            stitched.object,
            stitched.frame,
            options,
            covered=stitched.covered,
            slow_phase_solved=config.synchronise is Synchronise.AUTO,
            monitor=monitor,
        )
        seconds["refine"] = time.perf_counter() - start
        stitched, probe, summary = replace(stitched, object=found.object), found.probe, found.summary
        positions = found.positions
    start = time.perf_counter()
    residual = ForwardResidual(probe, patterns, positions=positions, max_patterns=RESIDUAL_PATTERNS)(
        stitched.object, stitched.frame.origin
    )
    library = patterns.library
    home = replace(stitched, object=library.to_host(stitched.object), coverage=library.to_host(stitched.coverage))
    assessed = _assess(home, library.to_host(probe), positions, residual, summary, how)
    seconds["judge"] = time.perf_counter() - start
    return replace(assessed, seconds=dict(seconds))


def _assess(
    stitched: StitchedObject,
    probe: ComplexArray,
    positions: FloatArray,
    residual: float,
    refined: RefinementSummary | None,
    how: Synchronisation,
) -> Reconstruction:
    """A stitched object on the host with its figures and warnings."""
    warnings = []
    box = scan_box(stitched.frame.local(positions), stitched.object.shape)
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
        positions=positions,
        residual=residual,
        flatness=flat,
        synchronised=how,
        placed=stitched.placed,
        dropped=stitched.dropped,
        seconds={},
        warnings=tuple(warnings),
        refined=refined,
    )


def synchronise(
    probe: Array,
    patterns: Patterns,
    placed: PlacedPatches,
    frame: Frame,
    config: InferConfig,
    seconds: dict[str, float],
    monitor: Monitor = NULL_MONITOR,
    pairs: IntArray | None = None,
) -> tuple[StitchedObject, Synchronisation]:
    """Stitch with the phases that explain the patterns best, of those the configuration allows.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64 of the patterns' library, in counts.
    patterns:
        Of the scan.
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
    pairs:
        From `ptychopinn.synchronise.overlap_pairs`, where somebody has looked them up already.

    Returns
    -------
    The object, in arrays of the library, and how its phases were set.
    """
    clock = _Clock(seconds)
    library, positions = patterns.library, patterns.data.positions
    size = placed.shape[-1]
    weights = patch_weights(library.to_host(probe), size)
    windows = Windows.at(positions, size, frame, library)
    if config.synchronise is Synchronise.OFF:
        (stitched,) = _stitch(placed, windows, weights, [None], None)
        clock.add("stitch")
        return stitched, Synchronisation(PhaseRule.OFF)
    monitor.report("synchronise", 0, 1)
    corners, _ = split_positions(positions, size)
    overlaps = measure_overlaps(placed, corners, weights, library, pairs)
    free = solve_phases(overlaps, library=library)
    candidates: list[tuple[PhaseRule, ComplexArray | None]] = [(PhaseRule.ON, free)]
    if config.synchronise is Synchronise.AUTO:
        tethered = solve_phases(overlaps, tether=_TETHER, start=free, library=library)
        candidates += [(PhaseRule.TETHERED, tethered), (PhaseRule.OFF, None)]
    del overlaps
    monitor.report("synchronise", 1, 1)
    clock.add("synchronise")
    residual_of = ForwardResidual(probe, patterns, max_patterns=RESIDUAL_PATTERNS)
    best: tuple[float, StitchedObject, PhaseRule] | None = None
    # An object may be large: then never more of them than are needed.
    together = len(candidates) if 8 * math.prod(frame.shape) <= _SMALL_OBJECT else 1
    for done in range(0, len(candidates), together):
        monitor.report("stitch", done, len(candidates))
        some = candidates[done : done + together]
        coverage = None if best is None else best[1].coverage
        objects = _stitch(placed, windows, weights, [phases for _, phases in some], coverage)
        clock.add("stitch")
        for (rule, _), stitched in zip(some, objects, strict=True):
            residual = math.nan if len(candidates) == 1 else residual_of(stitched.object, frame.origin)
            _log.info("Synchronisation %s: forward residual %.4f.", rule, residual)
            if best is None or residual < best[0]:
                best = (residual, stitched, rule)
        del stitched, objects
        clock.add("judge")
    monitor.report("stitch", len(candidates), len(candidates))
    assert best is not None  # there is always one candidate
    residual, stitched, rule = best
    if config.synchronise is not Synchronise.AUTO:
        return stitched, Synchronisation(rule)
    del best
    stitched, solved, residual = _solve_slow_phase(residual, stitched, probe, patterns, residual_of, monitor)
    how = Synchronisation(rule, solved)
    _log.info("Synchronisation %s: forward residual %.4f.", how, residual)
    clock.add("slow phase")
    return stitched, how


class _Clock:
    """Adds up the time between its calls."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, time.perf_counter()

    def add(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now


def _stitch(
    placed: PlacedPatches,
    windows: Windows,
    weights: FloatArray,
    candidates: Sequence[ComplexArray | None],
    coverage: Array | None,
) -> list[StitchedObject]:
    """An object for each candidate, the patches divided by its phases; all have one array of coverage."""
    library: ArrayLibrary = windows.library
    stitchers = [Stitcher(weights, windows.frame, library) for _ in candidates]
    shifted_weights = stitchers[0].weights
    for block in slices_of(len(windows), shifted_weights.at_a_time):
        some = windows[block]
        shifted = shifted_weights.at(some.fractions)
        weighted = placed[block] * shifted
        for number, (stitcher, phases) in enumerate(zip(stitchers, candidates, strict=True)):
            turned = weighted if phases is None else weighted * phase_factors(phases[block], library)
            stitcher.add_weighted(turned, shifted if coverage is None and number == 0 else None, some)
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
    """Take off the slow phase by which patches drifted from their neighbours, as far as that lowers the residual.

    The object may be changed in place, for it may be large. Overlaps tell neighbours' phases, and small errors of them
    add up over the scan; where the pattern lies on the detector tells the gradient of the phase itself.

    Returns
    -------
    The object, whether any slow phase was taken off, and the residual.
    """
    library, covered, obj, origin = patterns.library, stitched.covered, stitched.object, stitched.frame.origin
    solved = False
    for done in range(_SLOW_ROUNDS):
        monitor.report("slow phase", done, _SLOW_ROUNDS)
        phase = slow_phase(patterns, patterns.data.positions, obj, origin, probe, monitor=monitor)
        if phase is None:
            break
        obj = multiply_by_phase(obj, phase, library, where=covered)
        after = residual_of(obj, origin)
        if after >= residual:
            obj = multiply_by_phase(obj, phase, library, where=covered, sign=-1.0)
            break
        settled, residual, solved = after > _SETTLED * residual, after, True
        if settled:
            break
    monitor.report("slow phase", _SLOW_ROUNDS, _SLOW_ROUNDS)
    return replace(stitched, object=obj), solved, residual
