"""Try what passes may free, and free what explains patterns better that they do not use.

A trial makes the same passes twice over a part of the scan, once with one more quantity free. Patterns that neither
uses are then compared with both objects (`ptychopinn.solvers.pass_trial`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptychopinn.config.automatic import Freedom
from ptychopinn.config.infer import Background
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.subsampling import evenly_spread, nearest_to_middle, split_every
from ptychopinn.errors import Cancelled
from ptychopinn.geometry import Canvas
from ptychopinn.metrics.baselines import is_noisy, poisson_residual
from ptychopinn.metrics.quality import deviations_above
from ptychopinn.monitor import TimeLimit
from ptychopinn.refinement import RefineOptions, refinement_schedule
from ptychopinn.refinement.modes import add_mode, choose_probe_modes
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.solvers.options import PassOptions, StepSchedule
from ptychopinn.solvers.pass_trial import PassTrial
from ptychopinn.typing import FloatArray

_log = logging.getLogger(__name__)
# Patterns in the middle of the scan (a quarter of a small one), every so manyth of them held out, passes.
_PIXELS, _MIN_PATTERNS, _MAX_PATTERNS, _PART = 1 << 21, 48, 192, 4
_HELD_OUT, _MIN_JUDGES, _PASSES = 6, 4, 6
_FIRST_PATTERNS, _FIRST_PASSES = 48, 2  # of the trial of the probe, from a flat object
# Standard errors by which a freedom must lower the squared residual of held-out patterns; at first the object is poor.
_SURE, _FIRST_SURE = 2.0, 3.5
_WORTH = 0.1  # and the fraction by which it must lower it: a right value that is freed fits some noise
_SHARE = 0.25  # of the time that is left may go into trials
# Side by side; a probe that varies, and modes, are tried after them.
_TRIED = tuple(one for one in Freedom if one not in {Freedom.MODES, Freedom.VARIATION})
# Modes: at most so many; passes that a trial takes; how far the residual must be above that of noise.
_MOST_MODES, _MODES_PASSES, _ABOVE_NOISE = 5, 12, 1.5
_VARYING_MODES, _VARYING_PASSES = 4, 12  # of a probe that varies, and passes of its trial


@dataclass(frozen=True, eq=False)
class PassState:
    """What passes go on from."""

    model: ScanModel
    canvas: Canvas  # the object
    freed: frozenset[Freedom]


@dataclass(frozen=True, eq=False)
class Change:
    """What a trial found to be better."""

    freed: frozenset[Freedom]
    model: ScanModel
    why: str  # a sentence


@dataclass(frozen=True, eq=False)
class FreedomTrials:
    """Trials on the patterns of a scan. A trial that is cancelled changes nothing."""

    patterns: Patterns
    may_free: Collection[Freedom]
    limit: TimeLimit

    def free_wrong_probe(self, state: PassState) -> Change | None:
        """Free the probe, if it is so wrong that a few passes from a flat object show it; else None."""
        trial, schedule = self._trial(state, _FIRST_PATTERNS, _FIRST_PASSES), rpie_schedule(_FIRST_PASSES)
        return self._free_helpful(state, trial, [Freedom.PROBE], schedule, sure=_FIRST_SURE)

    def free_more(self, state: PassState, residual: float, seconds_of_pass: float) -> Change | None:
        """Free what helps: first single quantities, then a probe that varies, then its modes; None if nothing helps.

        Parameters
        ----------
        residual:
            Forward residual of the state.
        seconds_of_pass:
            Duration of a pass over the whole scan. No trial takes more than a quarter of the time that is left.
        """
        return (
            self._free_quantities(state, seconds_of_pass)
            or self._vary_probe(state, residual, seconds_of_pass)
            or self._add_modes(state, residual, seconds_of_pass)
        )

    def prefers(self, other: PassState, state: PassState, passes: int, schedule: StepSchedule) -> bool:
        """Whether another model and object are a better start than those of a state, after the same passes."""
        trial = self._trial(state, min(_MAX_PATTERNS, len(self.patterns)), passes)
        options = PassOptions(schedule)
        try:
            ours = trial.shares(state.model, options)
            its = replace(trial, start=other.canvas).shares(other.model, options)
        except Cancelled:
            return False
        return float(its.sum()) < float(ours.sum())

    def suffices(self, seconds_of_pass: float) -> bool:
        """Whether the time suffices to try single quantities on enough patterns."""
        return self._affordable(seconds_of_pass) >= min(_MIN_PATTERNS, len(self.patterns))

    def _affordable(self, seconds_of_pass: float) -> int:
        """The number of patterns on which single quantities may be tried in the time that is left."""
        patterns = self.patterns
        enough = min(_PIXELS // patterns.data.N**2, len(patterns) // _PART)
        count = min(max(enough, _MIN_PATTERNS), _MAX_PATTERNS, len(patterns))
        cost = (len(_TRIED) + 2) * 1.5 * (_PASSES + 1) * seconds_of_pass / len(patterns)  # of a pattern
        return int(min(count, _SHARE * max(self.limit.left, 0.0) / max(cost, 1e-9)))

    def _free_quantities(self, state: PassState, seconds_of_pass: float) -> Change | None:
        trial = self._trial(state, self._affordable(seconds_of_pass), _PASSES)
        return self._free_helpful(state, trial, _TRIED, refinement_schedule(_PASSES), sure=_SURE)

    def _free_helpful(
        self,
        state: PassState,
        trial: PassTrial,
        candidates: Collection[Freedom],
        schedule: StepSchedule,
        *,
        sure: float,
    ) -> Change | None:
        """Free those of the candidates that help the passes of a trial to explain patterns that they do not use."""
        freed = state.freed
        fixed = [one for one in self.may_free if one in candidates and one not in freed]
        if not fixed or len(trial.judges) < _MIN_JUDGES:
            return None

        def shares(free: Collection[Freedom]) -> FloatArray:
            return trial.shares(state.model, PassOptions(schedule, **updates_of(free)))

        try:
            base = shares(freed)
            helped = [one for one in fixed if _explains_more(shares(freed | {one}), base, sure)]
        except Cancelled:
            return None
        if not helped:
            return None
        _log.info("Freed %s.", ", ".join(helped))
        why = f"Freed {' and '.join(helped)}: held-out patterns were explained better."
        return Change(freed | set(helped), state.model, why)

    def _trial(self, state: PassState, count: int, passes: int) -> PassTrial:
        """A trial of passes over so many patterns in the middle of the scan, from the object so far."""
        used, judges = split_every(nearest_to_middle(state.model.positions, count), _HELD_OUT)
        return PassTrial(self.patterns, used, judges, state.canvas, passes, monitor=self.limit)

    def _may_try(self, freedom: Freedom, state: PassState, residual: float, seconds: float) -> bool:
        """Whether a change of the probe may be tried: it is allowed, time suffices, and noise does not explain all."""
        data = self.patterns.data
        if freedom not in self.may_free or freedom in state.freed or is_noisy(self.patterns):
            return False
        if seconds > _SHARE * self.limit.left:
            return False
        some = evenly_spread(len(data), _MIN_PATTERNS)
        noise = poisson_residual(np.asarray(data.counts(some)), ~data.bad_pixels)
        return bool(residual >= _ABOVE_NOISE * noise)

    def _vary_probe(self, state: PassState, residual: float, seconds_of_pass: float) -> Change | None:
        """Let the probe vary, if noise does not explain what is left and held-out patterns are explained better.

        A variation also explains some of what incoherent modes do, so it must explain more than these.
        """
        model = state.model
        count = min(_MAX_PATTERNS, len(self.patterns))
        share = count / len(self.patterns)
        cost = 3 * _VARYING_PASSES * share * seconds_of_pass
        if Freedom.MODES in state.freed or not self._may_try(Freedom.VARIATION, state, residual, cost):
            return None
        trial = self._trial(state, count, _VARYING_PASSES)
        free = state.freed | {Freedom.PROBE}

        def shares(freed: Collection[Freedom], model: ScanModel) -> FloatArray:
            return trial.shares(model, PassOptions(rpie_schedule(_VARYING_PASSES), **updates_of(freed)))

        try:
            varying = shares(free | {Freedom.VARIATION}, model)
            if not _explains_more(varying, shares(free, model), _SURE):
                return None
            library = self.patterns.library
            grown = add_mode(add_mode(library.to_host(model.probe)))
            if not _explains_more(varying, shares(free, replace(model, probe=library.from_host(grown))), _SURE):
                return None
        except Cancelled:
            return None
        _log.info("The probe varies.")
        return Change(
            free | {Freedom.VARIATION},
            model,
            f"The probe may vary over the scan, by {_VARYING_MODES} modes: held-out patterns were explained better.",
        )

    def _add_modes(self, state: PassState, residual: float, seconds_of_pass: float) -> Change | None:
        """Add incoherent modes to the probe, if noise does not explain what is left and held-out patterns show them."""
        if not self._may_try(Freedom.MODES, state, residual, _MODES_PASSES * seconds_of_pass):
            return None
        options = RefineOptions(1, modes=_MOST_MODES, **updates_of(state.freed))
        probe = choose_probe_modes(self.patterns, state.model, state.canvas, options, monitor=self.limit)
        if probe is None:
            return None
        return Change(
            state.freed | {Freedom.PROBE, Freedom.MODES},
            replace(state.model, probe=self.patterns.library.from_host(probe)),
            f"The probe got {len(probe)} incoherent modes: held-out patterns were explained better.",
        )


def updates_of(freed: Collection[Freedom]) -> dict[str, Any]:
    """What passes update where this much is free, as options of refinements and of passes."""
    return {
        "update_probe": Freedom.PROBE in freed,
        "update_positions": Freedom.POSITIONS in freed,
        "update_flux": Freedom.FLUX in freed,
        "update_background": Background.SMOOTH if Freedom.BACKGROUND in freed else None,
        "update_variation": _VARYING_MODES if Freedom.VARIATION in freed else 0,
    }


def _explains_more(shares: FloatArray, base: FloatArray, sure: float) -> bool:
    """Whether held-out patterns are explained better, by so many standard errors and by enough to matter."""
    return deviations_above(base, shares) > sure and float(shares.sum()) < (1 - _WORTH) * float(base.sum())
