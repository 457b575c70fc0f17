"""Refine a predicted object with a few passes of the solver, through the same forward model.

The network gives the large scales in one step. The passes then fit every measured count. Before a pass, the slow phase
of the object is solved (`ptychopinn.solvers.slow_phase`). The pass itself is that of `ptychopinn.solvers.engine`, with
a schedule for a good start. The forward residual decides which state is returned: the result never explains the
patterns worse than the prediction, nor worse than a flat object.

Where photons are few, the passes follow the likelihood of Poisson counts, and its residual decides. The square root of
a small count has a mean below the root of the mean, so fitted amplitudes would be biased. Small steps then average the
noise. Patterns that no pass uses decide, because a pass may fit the noise instead of the object.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary, slices_of
from ptychopinn.config.infer import Background, Likelihood
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.subsampling import evenly_spread, split_every
from ptychopinn.errors import DataError
from ptychopinn.forward import power
from ptychopinn.geometry import Canvas, Frame, Windows
from ptychopinn.metrics.baselines import is_noisy
from ptychopinn.metrics.quality import RESIDUAL_PATTERNS, ForwardResidual, deviations_above
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.scan_model import ScanModel
from ptychopinn.short_repr import ShortRepr
from ptychopinn.solvers.engine import PassEngine
from ptychopinn.solvers.options import PassOptions, StepSchedule, check_passes
from ptychopinn.solvers.pass_trial import fit_to_object
from ptychopinn.solvers.positions import MAX_MOVE_PX
from ptychopinn.solvers.slow_phase import SlowPhaseGrid, multiply_by_phase, slow_phase, without_plane
from ptychopinn.typing import FloatArray, IntArray

_log = logging.getLogger(__name__)
_HELD_OUT, _MIN_HELD_OUT = 8, 4  # then every 8th pattern is held out from the passes, if that gives at least 4
_QUICK_JUDGES = 64  # patterns that judge a quick refinement
_QUICK_SHARE = 0.25  # largest share of the patterns that its slow phase may take: then it costs less than a pass
_QUICK_WORSE = 1.02  # its residual may rise by this factor: passes that average noise fit less of it
SURE_DEVIATIONS = 1.5
"""Where photons are few, a pass is accepted only if it lowers the residual by this many standard errors."""
_GAUGE_PATTERNS = 64  # number of patterns that the scale is fitted to
_READ = 32  # patterns read at a time
# The slow phase is no longer solved once its standard deviation over the positions is below the first limit, or once it
# lowers the residual by a smaller fraction than the second.
_SETTLED_RAD = 0.005
_SETTLED_GAIN = 1e-4


def refinement_schedule(passes: int, *, noisy: bool = False, many_waves: bool = False) -> StepSchedule:
    """The best steps for a number of passes from a good start. Many small steps average noise.

    Parameters
    ----------
    many_waves:
        Whether a pattern is a sum over several waves: modes of the probe, or places of an exposure. Such passes
        converge slowly, and more momentum makes up for it. With free positions it does harm in some
        scans.
    """
    probe_step = max(0.3 / max(passes, 1), 0.1)
    if noisy:
        step = max(max(passes, 1) ** -0.5, 0.5)
        return StepSchedule(alpha=1.0, momentum=0.0, object_step=step, last_object_step=step, probe_step=probe_step)
    return StepSchedule(momentum=min(0.4 + 0.1 * passes, 0.8 if many_waves else 0.6), probe_step=probe_step)


class StartKind(StrEnum):
    """What the object is that a refinement starts from."""

    PREDICTED = "predicted"  # the slow phase is solved before the first pass
    SYNCHRONISED = "synchronised"  # predicted, with its slow phase solved
    REFINED = "refined"  # by an earlier refinement, so no other start is tried
    FLAT = "flat"  # nothing is known yet


@dataclass(frozen=True)
class RefineOptions:
    """Which quantities a refinement changes, and how.

    Attributes
    ----------
    passes:
        Number of passes. Each uses every pattern once.
    update_probe:
        Refine the probe too. Its energy is conserved.
    update_positions:
        Refine the positions too, by at most `MAX_MOVE_PX`. Their mean is conserved.
    update_flux:
        Fit the flux of every pattern too. Its mean stays 1.
    update_background:
        Fit a background of this kind too.
    update_variation:
        Fit so many modes by which the probe varies over the scan, and their weights; 0 keeps those of the model. Needs
        ``update_probe``.
    likelihood:
        Likelihood that the passes increase. None chooses Poisson counts where photons are few, and amplitudes
        elsewhere. Photons are few where Poisson noise alone leaves a forward residual of 0.2 or more
        (`ptychopinn.metrics.baselines.noise_residual`).
    schedule:
        Step sizes; None chooses `refinement_schedule` for the passes and the noise.
    seed:
        Random seed of the order of the patterns.
    quick:
        Spend little beside the passes: only the state after the last one is judged, by fewer patterns, and the slow
        phase is solved only where that costs less than a pass. However few photons are, amplitudes are followed if no
        likelihood is given, and no pattern is held out. The residual may rise by 2%.
    """

    passes: int
    update_probe: bool = False
    update_positions: bool = False
    update_flux: bool = False
    update_background: Background | None = None
    update_variation: int = 0
    likelihood: Likelihood | None = None
    schedule: StepSchedule | None = None
    seed: int = 0
    quick: bool = False


@dataclass(frozen=True)
class RefinementSummary:
    """Figures of a refinement.

    Attributes
    ----------
    likelihood, judged_by:
        Likelihood that the passes followed, and likelihood whose residual decided.
    residual_before, residual_after:
        Forward residuals (`ptychopinn.metrics.quality.ForwardResidual`) of the prediction and of the result, over the
        same evenly spread patterns, or over those that were held out.
    passes_asked, passes_done, passes_kept:
        Passes requested; passes made, which are fewer after a cancellation; passes in the result, 0 if none was better.
    probe:
        Whether the probe was refined.
    from_flat:
        Whether the passes started from a flat object, because it explained the patterns better than the prediction.
    moved_px:
        Root mean square displacement of the positions in the result, pixels; None if they were not refined.
    positions_reset:
        Number of positions that moved too far and were set back to their given values.
    variation_share:
        Fraction of the probe's energy that varies over the scan in the result; None if no variation was fitted.
    weights_reset:
        Number of patterns whose weights on a varying probe ran away and were set to 0.
    flux_deviation:
        Standard deviation of the flux of the patterns in the result (the mean is 1); None if it was not fitted.
    background_share:
        Fraction of the counts that the background explains in the result; None if no background was fitted.
    held_out:
        Number of patterns that the passes did not use, because photons are few, and that judged them.
    """

    likelihood: Likelihood
    judged_by: Likelihood
    residual_before: float
    residual_after: float
    passes_asked: int
    passes_done: int
    passes_kept: int
    probe: bool
    moved_px: float | None
    from_flat: bool = False
    positions_reset: int = 0
    variation_share: float | None = None
    weights_reset: int = 0
    flux_deviation: float | None = None
    background_share: float | None = None
    held_out: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Refinement(ShortRepr):
    """Result of `refine`.

    Attributes
    ----------
    object:
        (H, W) complex64 of the start's library, in its frame. Pixels that were not covered are unchanged.
    model:
        Probe and its variation, positions, flux, background and motion. Quantities that were not refined are unchanged.
    summary:
        Figures.
    """

    object: Array
    model: ScanModel
    summary: RefinementSummary


def refine(
    patterns: Patterns,
    model: ScanModel,
    start: Canvas,
    options: RefineOptions,
    *,
    kind: StartKind = StartKind.PREDICTED,
    monitor: Monitor = NULL_MONITOR,
) -> Refinement:
    """Refine a predicted object.

    Parameters
    ----------
    patterns:
        Patterns of the scan; their library computes. Bad pixels are ignored.
    model:
        Model of the scan, with a probe of the library in counts. The object was predicted with it.
    start:
        The prediction, of the patterns' library, or on the host and refined in tiles. Only covered pixels change.
        Windows may reach beyond its frame; the object is 1 there in the result.
    kind:
        What the start is.
    monitor:
        Gets each pass as "refine" with its residual, and is asked at every batch. If it is cancelled, the best state so
        far is returned.

    Raises
    ------
    DataError
        If the scan is empty or has no photons, or shapes do not agree.
    ConfigError
        If ``passes`` is negative.
    """
    check_passes(patterns.data, model.probe, options.passes)
    for name, array in (("object to refine", start.array), ("map of covered pixels", start.covered)):
        if array is not None and tuple(array.shape) != start.frame.shape:
            shape = tuple(array.shape)
            raise DataError(f"The {name} has the shape {shape}, its frame {start.frame.shape}.", "Give both alike.")
    library = patterns.library
    with library.session() as computing:
        model = replace(model, probe=library.cast(model.probe, "complex64"))
        start = replace(start, array=start.library.cast(start.array, "complex64"))
        work = _Refinement(patterns, model, start, options)
        return work.run(computing, kind, monitor)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A state and how well it explains the patterns."""

    shares: FloatArray  # contribution of each judging pattern to the squared residual
    object: Array
    model: ScanModel

    @property
    def residual(self) -> float:
        """The forward residual; infinite if it is not finite."""
        square = float(self.shares.sum())
        return math.sqrt(square) if math.isfinite(square) else math.inf


class _Refinement:
    """One refinement; see `refine`."""

    def __init__(self, patterns: Patterns, given: ScanModel, start: Canvas, options: RefineOptions) -> None:
        self._patterns, self._given, self._start, self._options = patterns, given, start, options
        noisy = not options.quick and is_noisy(patterns)
        self._used, self._judges = split_used_and_held_out(patterns, noisy=noisy)
        self._judged_by = Likelihood.POISSON if noisy else Likelihood.AMPLITUDE
        self._sure = SURE_DEVIATIONS if noisy else 0.0
        fixed = not (options.update_positions or options.update_probe)
        many = fixed and given.exposed_probe(patterns.library).shape[0] > 1
        self._passes = PassOptions(
            options.schedule or refinement_schedule(options.passes, noisy=noisy, many_waves=many),
            options.update_probe,
            options.update_positions,
            options.update_flux,
            options.update_background,
            options.update_variation,
            options.likelihood or self._judged_by,
            seed=options.seed,
        )
        # No window leaves this box.
        margin = MAX_MOVE_PX if options.update_positions else 0
        self._box = Frame.around(given.positions[self._used], patterns.data.N, margin)

    def run(self, library: ArrayLibrary, kind: StartKind, monitor: Monitor) -> Refinement:
        """Make the passes, and return the best state."""
        slow_phase_solved = kind is not StartKind.PREDICTED
        passes, options, given = self._options.passes, self._options, self._given
        before = best = self._judge(self._start.array, given)
        best_pass = done = 0
        is_flat = False
        if passes > 0:
            if kind in (StartKind.PREDICTED, StartKind.SYNCHRONISED):
                best, is_flat = self._best_start(before, given)
            slow_phase_solved &= not is_flat
            start = replace(self._start, array=best.object).moved_to(self._box)
            engine = PassEngine(self._patterns, self._used, given, start, self._passes, library)
            monitor.report("refine", 0, passes, {"residual": best.residual})
        first = best
        settled = passes > 0 and not self._slow_phase_pays(engine)
        for _ in range(passes):
            if not settled and (done > 0 or not slow_phase_solved):
                lacked_none = self._solve_slow_phase(engine, monitor)
                settled = lacked_none and done > 0  # after the first pass there may be a slow phase again
            residual = engine.run(done, passes, monitor)
            if residual is None:
                break
            done += 1
            if options.quick:
                monitor.report("refine", done, passes, {"residual": residual})
            else:
                best, best_pass = self._judge_pass(engine, first, (best, best_pass), (done, passes), monitor)
        if options.quick and done > 0:
            best, best_pass = self._judge_pass(engine, first, (best, best_pass), (done, passes), monitor)
        _log.info(
            "Refinement: forward residual %.4f before, %.4f after %d of %d passes.",
            before.residual,
            best.residual,
            best_pass,
            passes,
        )
        moved = best.model.positions - given.positions
        flux, background = best.model.flux, best.model.background
        if background is not None:
            background = float(self._patterns.library.xp.sum(background)) / self._mean_counts()
        summary = RefinementSummary(
            likelihood=self._passes.likelihood,
            judged_by=self._judged_by,
            residual_before=before.residual,
            residual_after=best.residual,
            passes_asked=passes,
            passes_done=done,
            passes_kept=best_pass,
            probe=options.update_probe,
            from_flat=is_flat,
            moved_px=float(np.sqrt((moved**2).sum(axis=1).mean())) if options.update_positions else None,
            positions_reset=engine.runaways if passes > 0 else 0,
            variation_share=best.model.variation_share(self._patterns.library)
            if options.update_variation > 0
            else None,
            weights_reset=engine.weight_runaways if passes > 0 else 0,
            flux_deviation=(0.0 if flux is None else float(flux.std())) if options.update_flux else None,
            background_share=(background or 0.0) if options.update_background is not None else None,
            held_out=len(self._patterns) - len(self._used),
        )
        return Refinement(best.object, best.model, summary)

    def _judge_pass(
        self, engine: PassEngine, first: _Candidate, best: tuple[_Candidate, int], at: tuple[int, int], monitor: Monitor
    ) -> tuple[_Candidate, int]:
        """The better one of the current state and the best so far, each with its number of passes."""
        now = self._judge(*self._result(engine, first.object))
        monitor.report("refine", *at, {"residual": now.residual})
        if self._options.quick:
            better = now.residual <= _QUICK_WORSE * best[0].residual
        else:
            better = now.residual < best[0].residual and deviations_above(first.shares, now.shares) > self._sure
        return (now, at[0]) if better else best

    def _slow_phase_pays(self, engine: PassEngine) -> bool:
        """Whether to solve a slow phase; a quick refinement does so only if that costs less than a pass."""
        if not self._options.quick:
            return True
        grid = SlowPhaseGrid.over(engine.positions, self._patterns.library.to_host(engine.probe))
        return len(grid.chosen) <= _QUICK_SHARE * len(self._used)

    def _mean_counts(self) -> float:
        """Mean counts of a judging pattern."""
        parts = slices_of(len(self._judges), _READ)
        return sum(float(self._patterns.data.counts(self._judges[part]).sum()) for part in parts) / len(self._judges)

    def _residual_of(self, model: ScanModel) -> ForwardResidual:
        return ForwardResidual(
            model,
            self._patterns,
            indices=self._judges,
            max_patterns=_QUICK_JUDGES if self._options.quick else RESIDUAL_PATTERNS,
            likelihood=self._judged_by,
        )

    def _judge(self, obj: Array, model: ScanModel) -> _Candidate:
        return self._judge_by(self._residual_of(model), obj, model)

    def _judge_by(self, residual_of: ForwardResidual, obj: Array, model: ScanModel) -> _Candidate:
        return _Candidate(residual_of.shares(replace(self._start, array=obj)), obj, model)

    def _best_start(self, before: _Candidate, model: ScanModel) -> tuple[_Candidate, bool]:
        """The best of prediction, scaled prediction and flat object, and whether it is the flat object."""
        start = self._start
        judge = partial(self._judge_by, self._residual_of(model), model=model)
        scaled = judge(self._fit_scale_and_phase(model))
        best = scaled if scaled.residual < before.residual else before
        flat = judge(self._where_covered(start.library.xp.ones_like(start.array), start.array))
        if flat.residual < best.residual:
            _log.warning("Refinement starts from a flat object: it explains the patterns better than the prediction.")
            return flat, True
        return best, False

    def _fit_scale_and_phase(self, model: ScanModel) -> Array:
        """The start times a factor: its amplitudes fit the patterns, and its mean is real and positive.

        Then its mean phase is that of the uncovered pixels, which are 1.
        """
        patterns, start = self._patterns, self._start
        library, xp = patterns.library, patterns.library.xp
        chosen = evenly_spread(len(patterns), _GAUGE_PATTERNS)
        windows = Windows.on(start, model.positions[chosen], patterns.data.N, library)
        probe_at = model.probe_at(library)
        product = energy = 0.0
        for part in slices_of(len(chosen), _READ):
            waves = probe_at(windows.fractions[part, ...], chosen[part])
            waves *= windows[part].cut(start.array)[:, None, ...]
            modelled = xp.sqrt(power(library.fft2(waves, norm="ortho"), library))
            measured, good = patterns.measured(patterns.amplitudes(chosen[part]))
            if good is not None:
                modelled *= good
            product += xp.sum(measured * modelled, dtype=xp.float64)
            energy += library.squared_sum(modelled)
        of_start = start.library.xp
        total = of_start.sum(self._where_covered(start.array, 0 * start.array), dtype=of_start.complex128)
        mean, product, energy = complex(total), float(product), float(energy)
        if not (product > 0 and energy > 0 and abs(mean) > 0):
            return start.array
        return self._where_covered(start.array * (product / energy * mean.conjugate() / abs(mean)), start.array)

    def _where_covered(self, obj: Array, elsewhere: Array) -> Array:
        """``obj`` where the start is covered, ``elsewhere`` at the other pixels."""
        covered = self._start.covered
        return obj if covered is None else self._start.library.xp.where(covered, obj, elsewhere)

    def _result(self, engine: PassEngine, start: Array) -> tuple[Array, ScanModel]:
        """Object in the frame of the start, and its model.

        Patterns that the passes did not use keep their positions.
        """
        library = self._start.library
        canvas, model = engine.result()
        here, there = self._start.frame.overlap(self._box)
        refined = library.put(library.xp.asarray(start, copy=True), here, canvas.array[there])
        if len(self._used) < len(self._patterns):
            model = self._fit_held_out(model, canvas)
        return self._where_covered(refined, start), model

    def _fit_held_out(self, model: ScanModel, canvas: Canvas) -> ScanModel:
        """The model with flux and weights of the patterns that the passes did not use fitted to the object."""
        if self._options.update_variation > 0:
            fitted = replace(self._passes, update_positions=False)
            computing = self._patterns.library
            model = fit_to_object(self._patterns, self._judges, model, canvas, fitted, computing, NULL_MONITOR)
        if model.flux is not None:
            flux = model.flux.copy()
            judged = ForwardResidual(
                replace(model, flux=None), self._patterns, indices=self._judges, max_patterns=len(self._judges)
            )
            flux[self._judges] = judged.light(canvas)
            model = replace(model, flux=flux)
        return model

    def _solve_slow_phase(self, engine: PassEngine, monitor: Monitor) -> bool:
        """Solve the slow phase and apply it if that lowers the residual; return whether none was left.

        If the probe is free, the linear part is left out. The probe can carry it, and no pattern shows the difference.
        A ramp on the object would disagree with the uncovered pixels.
        """
        canvas, model = engine.canvas, engine.model
        library, box = canvas.library, self._box
        phase = slow_phase(self._patterns, model, canvas, indices=self._used, monitor=monitor)
        if phase is None:
            return False
        at = np.round(model.positions[self._used] - box.origin).astype(np.int64)
        flat = library.from_host(at[:, 0] * box.shape[1] + at[:, 1])
        values = library.to_host(library.xp.take(library.xp.reshape(phase, (-1,)), flat, axis=0))
        if self._options.update_probe:
            phase, values = without_plane(phase, values, at, library)
        changed = multiply_by_phase(library.xp.asarray(canvas.array, copy=True), phase, library)
        # Both residuals are of the whole box, where the uncovered pixels get the phase too. In the result they are 1,
        # and a ramp would raise the residual.
        if len(self._used) < len(self._patterns):
            model = self._fit_held_out(model, canvas)
        residual_of = self._residual_of(model)
        before, after = (residual_of.shares(one) for one in (canvas, replace(canvas, array=changed)))
        if deviations_above(before, after) > self._sure:
            engine.multiply_by_phase(phase)
        return leaves_no_slow_phase(values, before, after)


def leaves_no_slow_phase(phases: FloatArray, before: FloatArray, after: FloatArray) -> bool:
    """Whether a slow phase was so small that it need not be solved again.

    Parameters
    ----------
    phases:
        (n,) its values at the positions, rad.
    before, after:
        Contributions to the squared residual (`ptychopinn.metrics.quality.ForwardResidual`) without and with it.
    """
    small = float(phases.std()) < _SETTLED_RAD
    return small or not after.sum() < (1 - _SETTLED_GAIN) ** 2 * before.sum()


def split_used_and_held_out(patterns: Patterns, *, noisy: bool) -> tuple[IntArray, IntArray]:
    """Indices of the patterns that the passes use, and of those that judge.

    Both are all patterns, unless the scan is noisy and has enough of them.
    """
    every = np.arange(len(patterns))
    if not noisy or len(patterns) < _HELD_OUT * _MIN_HELD_OUT:
        return every, every
    used, held = split_every(every, _HELD_OUT)
    if not any(patterns.data.counts(held[part]).any() for part in slices_of(len(held), _READ)):
        return every, every  # patterns without a photon cannot judge
    _log.info("Few photons: %d patterns are held out to judge the refinement.", len(held))
    return used, held
