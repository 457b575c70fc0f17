"""Reconstruct a scan without decisions by its user: what to start from, what to free, and when to stop.

Rounds of passes start from a flat object, each half as long again as the one before, the first ones on the inner half
of the patterns. Where the scan is sparse or dim, a network is asked after the second; its object is taken if it
explains the patterns better. Between the next rounds,
probe, positions, flux and background are each freed for a few passes over a part of the scan. What explains patterns
better that these passes did not use stays free. The rounds end when they no longer lower the forward residual, or when
the time is over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from ptychopinn.arrays import NUMPY, ArrayLibrary
from ptychopinn.assembly import PhaseRule, Synchronisation
from ptychopinn.automatic_trials import Change, FreedomTrials, PassState, updates_of
from ptychopinn.config.automatic import AutomaticConfig, Freedom
from ptychopinn.config.infer import InferConfig, ProbeSource
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.from_arrays import mend_every_pattern
from ptychopinn.data.inner_half import FACTOR, inner_half, object_on_whole, probe_on_whole
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, probe_in_counts, varying_probe_in_counts
from ptychopinn.data.subsampling import neighbour_distances
from ptychopinn.errors import Cancelled, DataError
from ptychopinn.metrics.baselines import is_noisy
from ptychopinn.metrics.quality import RESIDUAL_PATTERNS, ForwardResidual
from ptychopinn.monitor import NULL_MONITOR, Monitor, TimeLimit
from ptychopinn.reconstruction import Reconstruction, assess, reconstruct, uncertainty_of
from ptychopinn.reconstructor import Reconstructor
from ptychopinn.refinement import RefinementSummary, RefineOptions, StartKind, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.short_repr import ShortRepr
from ptychopinn.simulate.probes import probe_width_px
from ptychopinn.solvers.epie import CACHE_BYTES, frame_of, rpie_schedule
from ptychopinn.solvers.options import StepSchedule
from ptychopinn.stitching import StitchedObject, coverage_of, patch_weights
from ptychopinn.tiles import Tiling, where_object_fits
from ptychopinn.typing import FloatArray
from ptychopinn.uncertainty import check_uncertainty

MIN_PATTERNS = 10
"""Fewer patterns are refused: too little to tell an object from its probe."""
_DENSE = 0.4  # overlap of neighbouring probes above which passes from a flat object need less time than a network
_FIRST_PASSES = 2
_INNER_ROUNDS = 2  # so many use the inner half of the patterns; where passes soon fit it, more bring nothing
_NETWORK_AFTER, _NETWORK_PASSES = 1, 2  # the number of the round, from 0, after which it is asked; its own passes
_MAX_ROUND = 32  # passes in a round
_MAX_PASSES = 200
# A round pays if it changes the residual by this fraction (what averages noise may raise it), or by the second one if
# something is free, which fits noise too.
_PAYS, _FREE_PAYS = 0.001, 0.004
# Numbers of rounds, from 0, between which freedoms are tried; one sooner if the probe was wrong.
_FIRST_CHOICE, _LAST_CHOICE = 3, 5
_EARLY_ROUNDS, _EARLY_PROBE_STEP, _LATE_PROBE_STEP = 2, 0.5, 0.1  # the steps of a free probe in the first rounds


@dataclass(frozen=True, eq=False, repr=False)
class AutomaticReconstruction(ShortRepr):
    """A reconstruction, and how it came about."""

    reconstruction: Reconstruction
    freed: frozenset[Freedom]
    from_flat: bool  # whether passes started from a flat object
    passes: int  # passes made
    story: tuple[str, ...]  # what was done and why, in sentences


Update = Callable[[Callable[[], Reconstruction]], None]
"""Called after each round with a function that makes a reconstruction of the object so far, which takes time."""


def reconstruct_automatically(
    data: ScanDataset,
    reconstructor: Reconstructor | None,
    config: AutomaticConfig | None = None,
    *,
    library: ArrayLibrary = NUMPY,
    update: Update | None = None,
    monitor: Monitor = NULL_MONITOR,
) -> AutomaticReconstruction:
    """Reconstruct a scan.

    Parameters
    ----------
    reconstructor:
        A trained one, for the start; None starts from a flat object.
    library:
        Library of the passes without a reconstructor, which has its own.
    update:
        Called after every round.
    monitor:
        Gets progress, stage "rounds" after each. If it is cancelled, the result so far is returned.

    Raises
    ------
    DataError
        If the scan has fewer than `MIN_PATTERNS` patterns, or the checks of files refuse it
        (`ptychopinn.data.from_arrays.mend_every_pattern`).
    Cancelled
        If the monitor was cancelled before there was an object.
    """
    data = mend_every_pattern(data)
    if len(data) < MIN_PATTERNS:
        raise DataError(
            f"The scan has {len(data)} patterns; {MIN_PATTERNS} are needed to tell an object from its probe.",
            "Give the whole scan.",
        )
    config = config or AutomaticConfig()
    if config.uncertainty:
        check_uncertainty(data)
    limit = TimeLimit(monitor, config.max_time)
    if reconstructor is not None:
        library = getattr(reconstructor, "library", NUMPY)
    work = _Work(data, config, limit, library)
    work.start(reconstructor)
    with work.library.session() as computing:
        work.iterate(computing, update)
        found = work.result()
    if not config.uncertainty or monitor.cancelled:
        return found
    errors = uncertainty_of(data, found.reconstruction, flat_start=found.from_flat, monitor=monitor)
    return replace(found, reconstruction=replace(found.reconstruction, uncertainty=errors))


class _Work:
    """One reconstruction; see `reconstruct_automatically`."""

    def __init__(self, data: ScanDataset, config: AutomaticConfig, limit: TimeLimit, library: ArrayLibrary) -> None:
        self.library = library
        self._whole, self._config, self._limit = data, config, limit
        self._freed: frozenset[Freedom] = frozenset()
        self._story: list[str] = []
        self._passes, self._pass_seconds, self._next_choice = 0, 0.0, _FIRST_CHOICE
        self._tried = False  # whether what may be free was tried on enough patterns
        self._rounds: list[RefinementSummary] = []
        self._kind = StartKind.SYNCHRONISED
        self._predicted = False  # whether the object is the network's; quick passes would spoil what they cannot see
        self._start_seconds: dict[str, float] = {}
        self._warnings: tuple[str, ...] = ()

    # The start

    def start(self, reconstructor: Reconstructor | None) -> None:
        """Begin with a flat object, and decide whether a network is asked too."""
        data, inner = self._whole, inner_half(self._whole)
        self._begin_with(data if inner is None else inner, StartKind.FLAT)
        self._how, self._from_flat = Synchronisation(PhaseRule.NONE_NEEDED), True
        if (variation := self._model.variation) is not None:
            self._story.append(f"Passes started from the scan's probe, which varies by {len(variation.modes)} modes.")
        overlap = 1 - _spacing_px(data.positions) / probe_width_px(data.probe)
        self._network = reconstructor
        if reconstructor is None:
            self._story.append("Passes started from a flat object: there was no network.")
        elif overlap > _DENSE and not is_noisy(Patterns(data)):
            self._network = None
            self._story.append(
                f"Neighbouring probes overlap by {overlap:.0%} of their width, and photons are many: passes from a "
                "flat object are faster than the network."
            )
        elif reconstructor.model.N not in {data.N, self._data.N}:
            self._network = None
            self._story.append(
                f"No network was asked: it is for patterns {reconstructor.model.N} pixels wide, and too much light of "
                f"these, which are {data.N} wide, lies outside of their inner half."
            )
        if inner is not None:
            self._story.append("The first rounds used the inner half of the patterns.")

    def _begin_with(self, data: ScanDataset, kind: StartKind) -> None:
        """Go on with these patterns, a flat object, and probe and positions as given."""
        frame = frame_of(data)
        probe = probe_in_counts(data, fit_scaling(data), follow_offset=True)
        coverage = coverage_of(
            data.positions, patch_weights(probe, data.N), Tiling(frame, NUMPY, data.positions, data.N, NUMPY)
        )
        self._data, self._kind = data, kind
        self._stitched = StitchedObject(np.ones(frame.shape, np.complex64), coverage, frame, len(data), 0)
        probe, variation = varying_probe_in_counts(data, probe)
        self._model = ScanModel(probe, data.positions, variation=variation)

    def _use(self, library: ArrayLibrary) -> None:
        """Bring patterns, object and probe to the library."""
        self._patterns = Patterns(self._data, library, CACHE_BYTES)
        self._place_on(library)
        self._trials = FreedomTrials(self._patterns, self._config.may_free, self._limit)

    def use_whole_patterns(self) -> None:
        """Go on with the whole patterns, if passes used their inner half."""
        if self._data is self._whole:
            return
        library, stitched, model = self._patterns.library, self._stitched, self._model
        self._begin_with(self._whole, self._kind)
        obj = np.asarray(stitched.library.to_host(stitched.object))
        obj = object_on_whole(obj, stitched.frame, self._stitched.frame)
        self._stitched = replace(self._stitched, object=obj)
        self._model = replace(self._model, positions=FACTOR * model.positions)
        if Freedom.PROBE in self._freed:
            probe = probe_on_whole(np.asarray(library.to_host(model.probe)), np.asarray(self._model.probe))
            self._model = replace(self._model, probe=probe)
        self._pass_seconds *= FACTOR**2
        self._use(library)

    def _consider_network(self, library: ArrayLibrary) -> None:
        """Ask the network, if there is one that may help."""
        if self._network is None or self._limit.cancelled:
            return
        if self._network.model.N == self._whole.N:
            self.use_whole_patterns()
        if Freedom.PROBE in self._freed:
            self._story.append("No network was asked, because it needs the right probe.")
        elif self._ask_network(self._network):
            self._place_on(library)

    def _ask_network(self, reconstructor: Reconstructor) -> bool:
        """Predict and make passes; take the object if it explains the patterns better. False if time was too short."""
        try:
            found = self._best_prediction(reconstructor)
        except Cancelled:
            if not self._limit.stopped:
                self._story.append("The time did not suffice for the network: passes started from a flat object.")
            return False
        refined = found.refined
        assert refined is not None  # passes were asked for
        self._passes += refined.passes_done
        stitched = StitchedObject(found.object, found.coverage, found.frame, found.placed, found.dropped)
        model = ScanModel(found.probe, found.positions, variation=found.variation).on(self.library)
        predicted = PassState(model, stitched.canvas, self._freed)
        if not self._trials.prefers(predicted, self._state, _NETWORK_PASSES, self._schedule(_NETWORK_PASSES)):
            self._story.append("A flat object explained the patterns better than the network.")
            return True
        self._stitched, self._model, self._kind = stitched, model, StartKind.REFINED
        self._predicted = True
        self._start_seconds, self._warnings, self._how = dict(found.seconds), found.warnings, found.synchronised
        self._from_flat = refined.from_flat
        self._rounds.append(refined)
        self._story.append(f"After a network and {refined.passes_done} passes the residual was {found.residual:.3f}.")
        return True

    def _best_prediction(self, reconstructor: Reconstructor) -> Reconstruction:
        """The network's object after some passes, from the positions as given or located from its patches."""
        found = self._predict(reconstructor, located=False)
        if found.stage_error_px > 0:
            located = self._predict(reconstructor, located=True)
            if located.residual < found.residual:
                off = found.stage_error_px * self._whole.N / self._data.N
                self._story.append(
                    f"The network's patches showed that the stage was off by {off:.1f} px; the "
                    "positions were located from the patches."
                )
                found = replace(located, warnings=())
        return found

    def _predict(self, reconstructor: Reconstructor, *, located: bool) -> Reconstruction:
        config = InferConfig(probe_source=ProbeSource.SCAN, refine=_NETWORK_PASSES, refine_positions=located)
        return reconstruct(reconstructor, self._data, config, monitor=self._limit, judged=False)

    # The rounds

    def iterate(self, library: ArrayLibrary, update: Update | None) -> None:
        """Make rounds of passes until they do not pay, or the time is over; say if that left too little to be tried."""
        self._make_rounds(library, update)
        if self._config.max_time is None or self._limit.stopped or self._tried or self._passes == 0:
            return
        if open_to_trial := [one for one in self._config.may_free if one not in self._freed]:
            self._story.append(
                f"The time did not suffice to find out whether more is wrong ({', '.join(open_to_trial)})."
            )

    def _make_rounds(self, library: ArrayLibrary, update: Update | None) -> None:
        self._use(library)
        if self._take(self._trials.free_wrong_probe(self._state)):
            self._next_choice -= 1
        passes = _FIRST_PASSES
        for number in range(_MAX_PASSES):
            if number == _INNER_ROUNDS:
                self.use_whole_patterns()
            if self._limit.cancelled or self._passes >= _MAX_PASSES:
                break
            if self._pass_seconds > 0:
                passes = int(min(passes, self._limit.left / self._pass_seconds))
                if passes < 1:
                    break
            begun = time.monotonic()
            self._round(passes)
            self._pass_seconds = (time.monotonic() - begun) / max(passes, 1)
            last, cut = self._rounds[-1], self._limit.cancelled
            if update is not None and not cut:
                update(lambda: self.result(judged=False).reconstruction)
            changed = self._change(library, number)
            change = abs(last.residual_after / last.residual_before - 1)
            if not changed and not cut and change < (_FREE_PAYS if self._freed else _PAYS):
                self._story.append(f"It stopped after {self._passes} passes, as the last {passes} changed little.")
                return
            if number <= _NETWORK_AFTER or not changed:  # what was just freed is first given a few passes
                passes = min(max(passes + 2, passes * 3 // 2), _MAX_ROUND)
            self._report(passes)
        self._story.append(
            "The time did not suffice for a pass."
            if self._passes == 0
            else f"It ended after {self._passes} passes, while they still paid."
        )

    def _change(self, library: ArrayLibrary, number: int) -> bool:
        """After a round, what else is to be tried: first the network, then what to free; returns whether it is used."""
        if number == _NETWORK_AFTER:
            self._consider_network(library)
        if number <= _NETWORK_AFTER:
            return True  # the first rounds are too short to say that passes do not pay
        if number > _LAST_CHOICE or number < self._next_choice:
            return False
        residual = self._rounds[-1].residual_after
        self._tried |= self._trials.suffices(self._pass_seconds)
        changed = self._take(self._trials.free_more(self._state, residual, self._pass_seconds))
        self._next_choice = number + (1 if changed else 2)  # what was freed may have hidden something
        return changed

    @property
    def _state(self) -> PassState:
        return PassState(self._model, self._stitched.canvas, self._freed)

    def _take(self, change: Change | None) -> bool:
        """Go on with what a trial found, if it found something."""
        if change is None:
            return False
        self._freed, self._model = change.freed, change.model
        self._story.append(change.why)
        return True

    def _report(self, planned: int) -> None:
        """Report progress: of the time, if it is limited, else of the passes that were made or are planned."""
        seconds = self._config.max_time
        if seconds is None:
            self._limit.report("rounds", self._passes, self._passes + planned)
        else:
            self._limit.report("rounds", int(self._limit.elapsed), math.ceil(seconds))

    def _place_on(self, library: ArrayLibrary) -> None:
        """Bring the object to the library, where it fits, and the probe."""
        place = where_object_fits(self._stitched.frame, self._data.N, library) or NUMPY
        stitched, model = self._stitched, self._model
        to_host = stitched.library.to_host
        self._stitched = replace(
            stitched,
            object=place.from_host(to_host(stitched.object)),
            coverage=place.from_host(to_host(stitched.coverage)),
            library=place,
        )
        if not isinstance(model.probe, np.ndarray):
            return
        self._model = model.on(library)

    def _round(self, passes: int) -> None:
        varies = Freedom.VARIATION in self._freed
        options = RefineOptions(
            passes,
            **updates_of(self._freed),
            schedule=None if self._predicted and not varies else self._schedule(passes),
            seed=len(self._rounds),
            quick=not self._predicted,
        )
        start = replace(self._stitched.canvas, covered=self._stitched.covered)
        found = self.library.fit(
            lambda: refine(self._patterns, self._model, start, options, kind=self._kind, monitor=self._limit)
        )
        self._stitched = replace(self._stitched, object=found.object)
        self._model, self._kind = found.model, StartKind.REFINED
        self._rounds.append(found.summary)
        self._passes += found.summary.passes_done

    def _schedule(self, passes: int) -> StepSchedule:
        """Steps of the next round.

        From a flat object, and for a probe that varies, large steps where the probe is faint bring the large scales.
        Later momentum does, and small steps there average the noise.
        """
        number = len(self._rounds)
        if number == 0 or Freedom.VARIATION in self._freed:
            return rpie_schedule(passes)
        probe_step = _EARLY_PROBE_STEP if number < _EARLY_ROUNDS else _LATE_PROBE_STEP
        if is_noisy(self._patterns):
            return StepSchedule(alpha=1.0, momentum=0.5, probe_step=probe_step)
        return StepSchedule(alpha=0.3 if number <= _EARLY_ROUNDS else 0.5, momentum=0.8, probe_step=probe_step)

    # The result

    def result(self, *, judged: bool = True) -> AutomaticReconstruction:
        """The reconstruction so far; while work goes on it need not be judged."""
        if self._data is not self._whole:
            whole = copy(self)  # the work itself goes on with the inner half
            whole.use_whole_patterns()
            return whole.result(judged=judged)
        found = assess(self._brighten(), self._model, self._patterns, self._summary(), self._how, judged=judged)
        seconds = {**self._start_seconds, "all": self._limit.elapsed}
        found = replace(found, seconds=seconds, warnings=(*self._warnings, *found.warnings))
        return AutomaticReconstruction(found, self._freed, self._from_flat, self._passes, tuple(self._story))

    def _brighten(self) -> StitchedObject:
        """The object so far, as bright as the counts say: fitted amplitudes of few photons are too dark."""
        stitched = self._stitched
        if self._passes == 0 or self._predicted or not is_noisy(self._patterns):
            return stitched
        light = ForwardResidual(self._model, self._patterns, max_patterns=RESIDUAL_PATTERNS).light(stitched.canvas)
        brighter = stitched.object * math.sqrt(light.mean())
        return replace(stitched, object=stitched.library.xp.where(stitched.covered, brighter, stitched.object))

    def _summary(self) -> RefinementSummary | None:
        """All rounds as one refinement."""
        if not self._rounds:
            return None
        first, last = self._rounds[0], self._rounds[-1]
        kept = sum(one.passes_kept for one in self._rounds)
        moved = self._model.positions - self._data.positions  # in the last round, and before it
        free = last.moved_px is not None or moved.any()
        return replace(
            last,
            residual_before=first.residual_before,
            passes_asked=self._passes,
            passes_done=self._passes,
            passes_kept=kept,
            moved_px=float(np.sqrt((moved**2).sum(axis=1).mean())) if free else None,
        )


def _spacing_px(positions: FloatArray) -> float:
    """Median distance of a position from its nearest neighbour at another place, pixels."""
    places = np.unique(positions, axis=0)
    return float(np.median(neighbour_distances(places))) if len(places) > 1 else 0.0
