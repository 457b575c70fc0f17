"""Does a reconstruction explain the patterns?

The forward residual of a result is compared with that of a flat object under the same probe, with that of the mean
pattern as a model of every pattern, and with what Poisson noise leaves. A result that is hardly better than the best of
the first two explains nothing. One that is between is doubted: then passes on a part of the scan are judged by patterns
that they do not use (`ptychopinn.inspection`), because passes fit the patterns that they use at wrong positions too. If
they find nothing wrong, but leave more of the scan than of patterns that agree, something is not in the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.doubts import step_without_overlap
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.data.splits import probe_radius_px
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.forward import far_field
from ptychopinn.inspection.changes import Change
from ptychopinn.inspection.geometry import Agreement, GeometryCheck, check_geometry_stepwise, excess_of_scan
from ptychopinn.inspection.trial import TrialPatch, explained_share
from ptychopinn.metrics.baselines import mean_pattern_residual, poisson_residual
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray

_PATTERNS = 128  # evenly spread ones that show what a flat object and noise leave
_HARDLY = 0.25  # of what can be explained: a result below it is hardly better than nothing
_TRUSTED, _TRUSTED_PASSES = 0.8, 0.95  # from here on a prediction, and a result of passes, is not doubted
_WHOLE = 0.86  # of what can be explained: a result of passes below it leaves something
_DOUBTED = 0.6  # the same, where passes on a part cannot tell
_EXCESS = 2.5  # times what passes leave of patterns that agree: so much is left by something that is not in the model
_ROOM = 1.3  # times the residual of noise: what the mean pattern leaves at least where anything can be said
_OWN_PROBE = 0.5  # of the unexplained part: what the scan's own probe must explain better than the model's
_FAR = 2.0  # times the squared residual that passes with a free probe leave
_WELL = 0.5  # of what can be explained: passes from nothing do better than a network that is not trained enough
_MIN_OVERLAP = 0.4
_MIN_PATTERNS = 16
_SHORT_TRAINING = (
    "Axes, signs, scale and order of the positions, the probe, the dose and the overlap were tested, and nothing "
    "speaks against the scan. If the training was short, train longer, or add --refine 10; else inspect the patterns "
    "(ptychopinn inspect)."
)
_NOTHING_FOUND = (
    "Axes, signs, scale and order of the positions, the probe, the dose and the overlap were tested, and none stands "
    "out: inspect the patterns (ptychopinn inspect)."
)

_UNPREDICTED = (
    "Much is left, and passes on a part of the scan do not predict patterns that they do not use: the positions or the "
    "probe may be wrong, or patterns overlap too little to tell. Check both (ptychopinn inspect), or make more passes."
)


class Explains(StrEnum):
    """Whether a reconstruction explains the patterns."""

    YES = "yes"
    PARTLY = "in part"  # passes leave more of the scan than of one that agrees with positions and probe
    NO = "no"
    UNKNOWN = "cannot tell"  # noise leaves as much as the mean pattern


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether a reconstruction explains the patterns, and what may be wrong."""

    explains: Explains
    residual: float  # forward residual R of the result
    flat_residual: float  # R of a flat object under the same probe, of the best amplitude
    mean_residual: float  # R of the mean pattern as a model of every pattern
    noise_residual: float  # R of Poisson noise alone
    # Likely causes, as sentences with a remedy, in the order of what was tested; empty if all is well.
    causes: tuple[str, ...] = ()
    geometry: GeometryCheck | None = None  # what passes on a part of the scan showed; None if they were not needed

    @property
    def explained(self) -> float:
        """Share of what can be explained: 0 for the better of flat object and mean pattern, 1 for noise alone."""
        return explained_share(self.residual, min(self.flat_residual, self.mean_residual), self.noise_residual)

    @property
    def is_refusal(self) -> bool:
        """Whether the result explains nothing."""
        return self.explains is Explains.NO

    @property
    def figures(self) -> dict[str, float | str]:
        """For tables, files and terminals."""
        return {
            "explains the data": str(self.explains),
            "residual of a flat object": self.flat_residual,
            "residual of the mean pattern": self.mean_residual,
            "residual of noise": self.noise_residual,
        }

    @property
    def sentence(self) -> str:
        """The conclusion with its figures."""
        figures = (
            f"R = {self.residual:.3f}, where a flat object leaves {self.flat_residual:.3f}, the mean pattern "
            f"{self.mean_residual:.3f} and noise {self.noise_residual:.3f}."
        )
        match self.explains:
            case Explains.YES:
                return f"This reconstruction explains the data: {figures}"
            case Explains.PARTLY:
                return f"This reconstruction explains the data only in part ({self.explained:.0%}): {figures}"
            case Explains.NO:
                return f"This reconstruction does not explain the data: {figures}"
            case _:
                why = "" if self.causes else ", for photons are few"
                return f"Nobody can tell whether this reconstruction explains the data{why}: {figures}"

    @property
    def warning(self) -> str | None:
        """What to say to the user; None if all that can be explained is explained."""
        if self.explains is not Explains.NO and not self.causes:
            return None
        return " ".join([self.sentence, *self.causes])

    @property
    def record(self) -> Mapping[str, object]:
        """For files: figures, conclusion and causes."""
        return {
            "explains_the_data": str(self.explains),
            "residual": self.residual,
            "residual_flat_object": self.flat_residual,
            "residual_mean_pattern": self.mean_residual,
            "residual_noise": self.noise_residual,
            "causes": list(self.causes),
        }


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a verdict is about."""

    data: ScanDataset  # with the positions of the result
    probe: ComplexArray  # (modes, N, N) complex64 in counts, of the result
    residual: float  # forward residual R of the result
    passes: int = 0  # passes of a solver that are in the result; they fit wrong positions too
    trained: bool = True  # whether a network made it


def judge(evidence: Evidence) -> Verdict:
    """Judge a result.

    A look at some patterns is enough for results that explain the patterns well. For the others a part of the scan is
    reconstructed some times.
    """
    data = evidence.data
    chosen = evenly_spread(len(data), _PATTERNS)
    counts, good = data.counts(chosen), ~data.bad_pixels
    flat = flat_residual(counts, evidence.probe, good)
    mean = mean_pattern_residual(counts, good)
    noise = poisson_residual(counts, good)

    def verdict(explains: Explains, geometry: GeometryCheck | None = None, causes: tuple[str, ...] = ()) -> Verdict:
        if explains is Explains.NO:
            causes = _causes(evidence, geometry, mean, noise)
        return Verdict(explains, evidence.residual, flat, mean, noise, causes, geometry)

    nothing = min(flat, mean)
    if not math.isfinite(evidence.residual):
        return verdict(Explains.NO)
    explained = explained_share(evidence.residual, nothing, noise)
    if (step := step_without_overlap(data.positions, 2 * probe_radius_px(evidence.probe))) is not None:
        return verdict(Explains.UNKNOWN, causes=(_apart_cause(step),))
    if explained >= (_TRUSTED_PASSES if evidence.passes else _TRUSTED) and nothing > _ROOM * noise:
        return verdict(Explains.YES)
    geometry = check_geometry_stepwise(data, evidence.probe)
    if geometry is not None and geometry.agreement in {Agreement.CHANGED, Agreement.NONE}:
        return verdict(Explains.NO, geometry)
    if not nothing > _ROOM * noise:
        # Where noise hides the object, only a result that is much worse than nothing is surely wrong.
        return verdict(Explains.NO if evidence.residual > 1.5 * max(nothing, noise) else Explains.UNKNOWN, geometry)
    if explained < _HARDLY or _another_probe_is_better(evidence, geometry):
        return verdict(Explains.NO, geometry)
    said, doubts = _doubt(evidence, geometry, explained)
    return verdict(said, geometry, doubts)


def _doubt(evidence: Evidence, geometry: GeometryCheck | None, explained: float) -> tuple[Explains, tuple[str, ...]]:
    """Whether a result that explains something, of a scan in which nothing wrong was found, leaves something."""
    if geometry is None or explained >= _WHOLE:
        return Explains.YES, ()
    excess = excess_of_scan(evidence.data, evidence.probe, free_probe=geometry.free_probe)
    if excess is None:
        return (Explains.UNKNOWN, (_UNPREDICTED,)) if explained < _DOUBTED else (Explains.YES, ())
    return (Explains.PARTLY, (_excess_cause(excess),)) if excess >= _EXCESS else (Explains.YES, ())


def _apart_cause(step: float) -> str:
    return (
        f"Neighbouring positions are {step:.3g} pixels apart, farther than the probe is wide: each pattern is "
        "explained by a picture of its own. Check the unit and the scale of the positions."
    )


def _excess_cause(excess: float) -> str:
    return (
        f"Passes on a part of the scan leave {excess:.1f} times the squared residual that they leave of simulated "
        "patterns with the same positions and probe: something in the scan is not in the model. Look for rows that ran "
        "backwards, lost or repeated patterns, axes that are rotated or scaled differently, and a beam, a detector or "
        "a sample that changed during the scan (ptychopinn inspect SCAN -o scan.png); try --refine-positions, "
        "--refine-flux, --refine-background smooth and --refine-probe."
    )


def _another_probe_is_better(evidence: Evidence, geometry: GeometryCheck | None) -> bool:
    """Whether passes that correct the probe explain patterns that they do not use far better than the passes did.

    Passes on the patches of a network that learned little are few: there passes from nothing with the probe as it is
    have to do worse too.
    """
    if not evidence.passes or geometry is None or not geometry.free_probe:
        return False
    noise = geometry.noise_residual**2
    left = _FAR * max(geometry.given_residual**2 - noise, noise)
    if evidence.residual**2 - noise <= left or not evidence.trained:
        return evidence.residual**2 - noise > left
    return TrialPatch(evidence.data, evidence.probe).trial(Change()).residual ** 2 - noise > left


def flat_residual(counts: FloatArray, probe: ComplexArray, good: BoolArray) -> float:
    """Forward residual R of a flat object of the best amplitude.

    Parameters
    ----------
    counts:
        (b, N, N), DC at [N//2, N//2].
    probe:
        (modes, N, N) complex.
    good:
        (N, N) bool.
    """
    model = np.sqrt((np.abs(far_field(probe.astype(np.complex128))) ** 2).sum(axis=0))[good]
    seen = counts[:, good].astype(np.float64)
    energy, total = float((model**2).sum()), float(seen.sum())
    if energy <= 0 or total <= 0:
        return 1.0
    cross = float((np.sqrt(seen).sum(axis=0) * model).sum())
    return math.sqrt(max(1 - cross**2 / (len(seen) * energy * total), 0.0))


def _causes(evidence: Evidence, geometry: GeometryCheck | None, mean: float, noise: float) -> tuple[str, ...]:
    tested = (
        _geometry_cause(geometry),
        _free_probe_cause(evidence, geometry),
        _probe_cause(evidence),
        _training_cause(evidence, geometry),
        _dose_cause(mean, noise),
        _overlap_cause(geometry),
    )
    found = tuple(cause for cause in tested if cause is not None)
    return found or (_SHORT_TRAINING if evidence.trained else _NOTHING_FOUND,)


def _geometry_cause(geometry: GeometryCheck | None) -> str | None:
    if geometry is None or geometry.agreement not in {Agreement.CHANGED, Agreement.NONE}:
        return None
    if geometry.agreement is Agreement.NONE:
        return (
            geometry.sentence + " Check the order of patterns and positions, and their unit; gaps or hot pixels and "
            "another scan's probe do the same."
        )
    return f"{geometry.sentence} {geometry.best.remedy}".rstrip() + "."


def _free_probe_cause(evidence: Evidence, geometry: GeometryCheck | None) -> str | None:
    if geometry is None or not _another_probe_is_better(evidence, geometry):
        return None
    return (
        f"Passes that correct the probe explain the patterns far better (R {geometry.given_residual:.3f}): the probe "
        "is not that of this scan, or both axes are negated, which its complex conjugate can make up for. Add "
        "--refine-probe, or try: ptychopinn convert SCAN -o NEW.npz --negate-y --negate-x."
    )


def _probe_cause(evidence: Evidence) -> str | None:
    """Whether the scan's own probe explains the patterns much better than that of the result."""
    if len(evidence.data) < _MIN_PATTERNS:
        return None
    own = probe_in_counts(evidence.data, fit_scaling(evidence.data), follow_offset=True)
    patch = TrialPatch(evidence.data, own)
    if not patch.is_lit:
        return None
    trials = {"scan": patch.trial(Change()).residual}
    trials["result"] = patch.trial(Change(), other_probe=evidence.probe).residual
    if trials["scan"] ** 2 < (1 - _OWN_PROBE) * trials["result"] ** 2:
        return (
            f"The scan's own probe explains the patterns better than that of the result (R {trials['scan']:.3f}, not "
            f"{trials['result']:.3f}, after passes on a part): the model is of another scan's light. Use "
            "--probe-source scan, or train on this scan."
        )
    return None


def _dose_cause(mean: float, noise: float) -> str | None:
    if noise < 0.8 * mean:
        return None
    return "So few photons leave little to explain; check the dose (--nphotons) and --measurement."


def _overlap_cause(geometry: GeometryCheck | None) -> str | None:
    if geometry is None or geometry.overlap >= _MIN_OVERLAP:
        return None
    return (
        f"Neighbouring positions overlap by {max(geometry.overlap, 0):.0%} of the probe's width, too little to hold "
        "patches together: check the unit and scale of the positions."
    )


def _training_cause(evidence: Evidence, geometry: GeometryCheck | None) -> str | None:
    if not evidence.trained or geometry is None or geometry.agreement is not Agreement.AS_GIVEN:
        return None
    explained = explained_share(geometry.given_residual, geometry.nothing_residual, geometry.noise_residual)
    if explained < _WELL:
        return None
    return (
        f"A few passes from nothing explain the patterns (R {geometry.given_residual:.3f}), so the scan is right and "
        "the network is not trained enough: train longer, or add --refine 10."
    )
