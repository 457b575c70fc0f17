"""One refinement: its start, its passes, and which state of the object is the result."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ptychopinn.arrays import Array, slices_of
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.errors import DataError
from ptychopinn.forward import power
from ptychopinn.geometry import Canvas, Frame, Windows
from ptychopinn.metrics.baselines import is_noisy
from ptychopinn.metrics.quality import RESIDUAL_PATTERNS, ForwardResidual, deviations_above
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.refinement.judging import SURE_DEVIATIONS, is_negligible, split_used_and_held_out
from ptychopinn.refinement.modes import choose_probe_modes
from ptychopinn.refinement.options import RefineOptions, StartKind, refinement_schedule
from ptychopinn.refinement.result import Refinement, RefinementSummary
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers.engine import PassEngine
from ptychopinn.solvers.options import PassOptions, check_passes
from ptychopinn.solvers.pass_trial import fit_to_object
from ptychopinn.solvers.positions import MAX_MOVE_PX
from ptychopinn.solvers.slow_phase import SlowPhaseGrid, multiply_by_phase, slow_phase, without_plane
from ptychopinn.typing import FloatArray

_log = logging.getLogger(__name__)
_QUICK_JUDGES = 64  # patterns that judge a quick refinement
_QUICK_SHARE = 0.25  # it solves the slow phase only from this fraction of the patterns or less, in less than a pass
_QUICK_WORSE = 1.02  # its result is used if the residual is not above that of the start by more than this factor
_GAUGE_PATTERNS = 64  # number of patterns that the scale is fitted to
_READ = 32  # patterns read at a time


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
    model = replace(model, probe=patterns.library.cast(model.probe, "complex64"))
    start = replace(start, array=start.library.cast(start.array, "complex64"))
    noisy = not options.quick and is_noisy(patterns)

    def make_passes(model: ScanModel, options: RefineOptions = options) -> Refinement:
        with patterns.session() as computing:
            return _Refinement(computing, model, start, options, noisy=noisy).run(kind, monitor)

    more = None if options.modes is None else choose_probe_modes(patterns, model, start, options, monitor=monitor)
    if more is None:
        return make_passes(model)
    before = make_passes(model, replace(options, passes=0)).summary.residual_before
    found = make_passes(replace(model, probe=patterns.library.from_host(more)))
    if not found.summary.residual_after < before:
        _log.warning("The modes that were added to the probe are left out: the passes did not need them.")
        return make_passes(model)
    return replace(found, summary=replace(found.summary, residual_before=before))


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

    def __init__(
        self, patterns: Patterns, given: ScanModel, start: Canvas, options: RefineOptions, *, noisy: bool
    ) -> None:
        self._patterns, self._given, self._start, self._options = patterns, given, start, options
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

    def run(self, kind: StartKind, monitor: Monitor) -> Refinement:
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
            engine = PassEngine(self._patterns, self._used, given, start, self._passes)
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

        Its mean phase is then 0, as that of the uncovered pixels, which are 1.
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
            model = fit_to_object(self._patterns, self._judges, model, canvas, fitted, NULL_MONITOR)
        if model.flux is not None:
            flux = model.flux.copy()
            judged = ForwardResidual(
                replace(model, flux=None), self._patterns, indices=self._judges, max_patterns=len(self._judges)
            )
            flux[self._judges] = judged.light(canvas)
            model = replace(model, flux=flux)
        return model

    def _solve_slow_phase(self, engine: PassEngine, monitor: Monitor) -> bool:
        """Solve the slow phase and apply it if that lowers the residual.

        Returns True if it was negligible, and need not be solved again; False if it was not, or not determined.
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
        # While residuals are compared, the uncovered pixels get the phase too. In the result they are 1, and a ramp
        # would seem worse than it is.
        if len(self._used) < len(self._patterns):
            model = self._fit_held_out(model, canvas)
        residual_of = self._residual_of(model)
        before, after = (residual_of.shares(one) for one in (canvas, replace(canvas, array=changed)))
        if deviations_above(before, after) > self._sure:
            engine.multiply_by_phase(phase)
        return is_negligible(values, before, after)
