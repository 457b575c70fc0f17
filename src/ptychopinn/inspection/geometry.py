"""Compare changes of a scan: which orientation, scale, order and probe explain patterns that the passes did not use."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace
from enum import StrEnum

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.inspection.changes import ORIENTATIONS, Change
from ptychopinn.inspection.trial import Trial, TrialPatch
from ptychopinn.short_repr import ShortRepr
from ptychopinn.typing import ComplexArray

MIN_PATTERNS = 16
"""Fewer patterns cannot be compared."""
_SCALES = (0.5, 0.7, 0.85, 1.18, 1.4, 2.0)
_FINER_SCALES = ((0.92, 1.08), (0.96, 1.04))
_OFFSETS = (-2, -1, 1, 2)
_SURE = 3.0  # standard errors by which the best change is better than the scan as given
_GAIN = 0.15  # share of what the given scan leaves unexplained that a change must explain
# Smaller steps overlap more, and are explained better for that alone.
_SCALE_GAIN, _LITTLE_MORE = 0.5, 1.2
_EXPLAINED = 0.1  # of what can be explained; below it no comparison says anything
_SETTLED = 0.85  # the scan as given explains so much that nothing else needs to be tried
_CLEAR = 1.5  # times the residual of noise: what the mean pattern has to leave for a contradiction to be seen
_ROOM = 1.15  # the same for a scale to be seen
_FAINT = 1.05  # the same for any change to be seen: below, one of many may seem better by chance
_PREDICTED = 1 / 3  # of what can be explained: what passes explain at least of patterns that agree
_OVERLAPPING = 0.4  # of the probe's width: below, it is asked whether any change would be seen
_CAN_TELL = 0.5  # the same for more than noise to be seen in what is left
_QUICK_COUNT, _QUICK_PASSES, _DOUBT_COUNT = 64, 2, 80


class Agreement(StrEnum):
    """Whether patterns, positions and probe agree."""

    AS_GIVEN = "as given"
    CHANGED = "changed"  # they agree after a change
    UNKNOWN = "cannot tell"  # the data are explained alike by changes that differ, or hardly at all
    NONE = "none"  # neighbouring patterns contradict each other, and no change that was tried helps


@dataclass(frozen=True, eq=False, repr=False)
class GeometryCheck(ShortRepr):
    """Result of `check_geometry`."""

    agreement: Agreement
    best: Change  # the change that mends the scan, or none
    trials: tuple[Trial, ...]  # all that was tried: the best, and others by their residual
    alike: tuple[Change, ...]  # other changes that explain the patterns as well as the best, within the noise
    # Forward residual R of the patterns that the passes did not use.
    given_residual: float
    best_residual: float
    # R of the mean pattern, and R of Poisson noise.
    nothing_residual: float
    noise_residual: float
    # Size of the part that was used: number of patterns, and their width in pixels.
    patterns: int
    width: int
    free_probe: bool  # whether the passes corrected the probe
    overlap: float  # as in `ptychopinn.inspection.trial.TrialPatch`

    @property
    def sentence(self) -> str:
        """The conclusion in words, with figures."""
        tried = (
            f"R {self.given_residual:.3f} for patterns that passes did not use, {self.nothing_residual:.3f} with the "
            "mean pattern as model"
        )
        match self.agreement:
            case Agreement.AS_GIVEN:
                return f"Patterns, positions and probe agree as given ({tried})."
            case Agreement.CHANGED:
                return (
                    f"Patterns, positions and probe do not agree as given ({tried}), but with: {self.best} "
                    f"(R {self.best_residual:.3f})."
                )
            case Agreement.NONE:
                return (
                    f"Neighbouring patterns contradict each other at these positions ({tried}), and no exchange, sign, "
                    "scale or offset that was tried mends it."
                )
            case _:
                return f"Whether axes and signs are right cannot be told from these patterns ({tried})."

    @property
    def doubt(self) -> str:
        """What else fits, in words; empty if nothing does."""
        if not self.alike or self.agreement in {Agreement.UNKNOWN, Agreement.NONE}:
            return ""
        return f"Within the noise these fit as well: {'; '.join(map(str, self.alike))}."


def check_geometry(data: ScanDataset, probe: ComplexArray | None = None) -> GeometryCheck | None:
    """Try orientations, scales and offsets of positions, orientations of patterns, and other forms of the probe.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64 in counts; None takes the scan's.

    Returns
    -------
    None if the scan has fewer than 16 patterns or no extent.
    """
    patch = _patch(data, probe)
    if patch is None:
        return None
    comparison = _Comparison(patch)
    comparison.choose_probe(Change(positions=one) for one in ORIENTATIONS)
    best = comparison.leading
    # An offset may look like another orientation: the steps of a spiral are turns.
    comparison.run([replace(one, offset=offset) for one in (best, Change()) for offset in _OFFSETS])
    best = comparison.leading
    comparison.run([best.with_scale(scale) for scale in _SCALES])
    for finer in _FINER_SCALES:
        scaled = comparison.nearest_scaled()
        comparison.run([scaled.with_scale(scaled.scale * factor) for factor in finer])
    comparison.run([Change(patterns=one) for one in ORIENTATIONS[1:]])
    comparison.run([Change(conjugate_probe=True), Change(probe_from_corner=True)])
    return comparison.conclude()


def check_geometry_quickly(data: ScanDataset, probe: ComplexArray | None = None) -> GeometryCheck | None:
    """A quick form of `check_geometry`: a smaller part of the scan, and only orientations if the scan fits badly.

    It never concludes that patterns contradict each other: what it compares is too coarse for that.
    """
    patch = _patch(data, probe, count=_QUICK_COUNT, passes=_QUICK_PASSES)
    if patch is None:
        return None
    comparison = _Comparison(patch)
    comparison.choose_probe([Change()])
    if not comparison.is_settled:
        comparison.run([Change(positions=one) for one in ORIENTATIONS[1:]])
    found = comparison.conclude()
    return replace(found, agreement=Agreement.UNKNOWN) if found.agreement is Agreement.NONE else found


def check_geometry_stepwise(data: ScanDataset, probe: ComplexArray | None = None) -> GeometryCheck | None:
    """`check_geometry`, but it ends at once if the scan as given explains nearly all."""
    patch = _patch(data, probe, count=_DOUBT_COUNT)
    if patch is None:
        return None
    comparison = _Comparison(patch)
    comparison.choose_probe([Change()])
    return comparison.conclude() if comparison.is_settled else check_geometry(data, probe)


def excess_of_scan(data: ScanDataset, probe: ComplexArray | None = None, *, free_probe: bool = False) -> float | None:
    """How much more passes leave of a scan than of one that agrees with its positions and its probe.

    The squared residual beyond noise of patterns that passes over a part do not use, as a multiple of what they leave
    of patterns that are simulated at the same positions.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64 in counts; None takes the scan's.
    free_probe:
        Whether the passes correct the probe.

    Returns
    -------
    None if that is too much to tell: under a half of what can be explained is explained of patterns that agree.
    """
    patch = _patch(data, probe, count=_DOUBT_COUNT)
    if patch is None:
        return None
    agreeing = copy(patch)
    agreeing.simulate(free_probe=free_probe)
    found, expected = (one.trial(Change(), free_probe=free_probe) for one in (patch, agreeing))
    left, least = (t.residual**2 - one.noise_residual**2 for t, one in ((found, patch), (expected, agreeing)))
    return left / least if agreeing.explained(expected) > _CAN_TELL and least > 0 else None


def _patch(data: ScanDataset, probe: ComplexArray | None, **size: int) -> TrialPatch | None:
    """A part to make trials on, or None where there is none."""
    if len(data) < MIN_PATTERNS or not (data.positions.std(axis=0) >= 1).any():
        return None
    patch = TrialPatch(data, probe, **size)
    return patch if patch.is_lit else None


class _Comparison:
    """Trials on one patch, all with the probe fixed or all with the probe free."""

    def __init__(self, patch: TrialPatch, *, free_probe: bool = False) -> None:
        self._patch = patch
        self._free = free_probe
        self._trials: dict[Change, Trial] = {}

    def choose_probe(self, changes: Iterable[Change]) -> None:
        """Try changes with the probe fixed and free, and go on with what explains most."""
        tried: dict[bool, dict[Change, Trial]] = {False: {}, True: {}}
        for change in changes:
            for free, trials in tried.items():
                trials[change] = self._patch.trial(change, free_probe=free)
        self._free = min(tried, key=lambda free: min(trial.residual for trial in tried[free].values()))
        self._trials = tried[self._free]

    def run(self, changes: Iterable[Change]) -> None:
        """Try more changes."""
        for change in changes:
            if change not in self._trials:
                self._trials[change] = self._patch.trial(change, free_probe=self._free)

    @property
    def given(self) -> Trial:
        """The scan as it is."""
        return self._trials[Change()]

    @property
    def is_settled(self) -> bool:
        """Whether the scan as it is explains nearly all that can be explained, well above the noise."""
        return self._is_clear and self._patch.explained(self.given) >= _SETTLED

    @property
    def _is_clear(self) -> bool:
        return self._patch.mean_residual > _CLEAR * self._patch.noise_residual

    @property
    def leading(self) -> Change:
        """The best change so far, or none where it is not better than the scan as it is."""
        return self.best.change if self.is_better(self.best) else Change()

    @property
    def best(self) -> Trial:
        """The trial with the lowest residual; one of another scale only if it is much better than without."""
        plain = [trial for trial in self._trials.values() if trial.change.scale == 1]
        best = min(plain, key=lambda trial: trial.residual)
        scaled = self.best_scaled()
        return best if scaled is None else self._trials[scaled]

    def nearest_scaled(self) -> Change:
        """The change of the scale that fits best.

        Smaller steps are explained better for their overlap alone. So of the scales below 1 it is the largest one that
        leaves little more than the best.
        """
        best = self._best_scaled_trial
        if best.change.scale > 1:
            return best.change
        scaled = [trial for trial in self._trials.values() if trial.change.scale != 1]
        limit = _LITTLE_MORE * max(self._left(best), 0.0)
        return max(
            (trial.change for trial in scaled if trial.change.scale < 1 and self._left(trial) <= limit),
            key=lambda change: change.scale,
            default=best.change,
        )

    def best_scaled(self) -> Change | None:
        """The change of the scale that fits best, if it is much better than all others."""
        plain = [self._left(trial) for trial in self._trials.values() if trial.change.scale == 1]
        if len(plain) == len(self._trials) or self._patch.mean_residual < _ROOM * self._patch.noise_residual:
            return None
        best = self._best_scaled_trial
        gain = _GAIN if best.change.scale > 1 else _SCALE_GAIN
        return self.nearest_scaled() if max(self._left(best), 0.0) < (1 - gain) * min(plain) else None

    @property
    def _best_scaled_trial(self) -> Trial:
        scaled = (trial for trial in self._trials.values() if trial.change.scale != 1)
        return min(scaled, key=lambda trial: trial.residual)

    def _left(self, trial: Trial) -> float:
        """What a trial leaves unexplained beyond noise, squared."""
        return trial.residual**2 - self._patch.noise_residual**2

    def is_better(self, trial: Trial) -> bool:
        """Whether a change explains the patterns better than the scan as it is, beyond chance."""
        gain = self.given.residual**2 - trial.residual**2
        sure = self.given.deviations_above(trial) >= _SURE
        surpasses = self._patch.explained(trial) > 0
        return sure and gain > _GAIN * max(self._left(self.given), 0.0) and surpasses

    def conclude(self) -> GeometryCheck:
        """The conclusion from all trials."""
        best = self.best
        if not self.is_better(best):
            best = self.given
        elif not best.change.flags:
            # For many probes turned patterns and turned positions are the same; positions are easier to mend.
            convertible = [one for one in self._trials.values() if one.change.flags and one.change.scale == 1]
            like = [one for one in convertible if one.deviations_above(best) < _SURE and self.is_better(one)]
            best = min(like, key=lambda one: one.residual, default=best)
        others = [trial for trial in self._trials.values() if trial is not best and trial.change.scale == 1]
        alike = [trial.change for trial in others if trial.deviations_above(best) < _SURE]
        patch = self._patch
        return GeometryCheck(
            agreement=self._agreement(best, alike),
            best=best.change,
            trials=tuple(sorted(self._trials.values(), key=lambda trial: (trial is not best, trial.residual))),
            alike=tuple(alike),
            given_residual=self.given.residual,
            best_residual=best.residual,
            nothing_residual=patch.mean_residual,
            noise_residual=patch.noise_residual,
            patterns=len(patch),
            width=patch.width,
            free_probe=self._free,
            overlap=patch.overlap,
        )

    def _agreement(self, best: Trial, alike: list[Change]) -> Agreement:
        if not best.change.is_none:
            if self._patch.mean_residual < _FAINT * self._patch.noise_residual:
                return Agreement.UNKNOWN
            plain = best.change.scale >= 1 and self._patch.overlap >= _OVERLAPPING
            sure = plain or self._predicts_what_agrees(best.change)
            return Agreement.CHANGED if sure else Agreement.UNKNOWN
        explained = self._patch.explained(best)
        if not explained > _EXPLAINED:
            contradicts = explained < 0 and self._is_clear and self._predicts_what_agrees(best.change)
            return Agreement.NONE if contradicts else Agreement.UNKNOWN
        oriented = [change for change in alike if change.is_orientation]
        return Agreement.UNKNOWN if len(oriented) == len(ORIENTATIONS) - 1 else Agreement.AS_GIVEN

    def _predicts_what_agrees(self, change: Change) -> bool:
        """Whether passes at these positions predict patterns that agree with them, and better than with a change.

        Where windows overlap little, patterns that are left out are predicted badly though all is right, and better
        with smaller steps. Only what does not happen to patterns that agree speaks against those of the scan.
        """
        patch = copy(self._patch)
        patch.simulate(free_probe=self._free)
        agreeing = _Comparison(patch, free_probe=self._free)
        agreeing.run([Change(), change])
        return agreeing.leading.is_none and patch.explained(agreeing.given) >= _PREDICTED
