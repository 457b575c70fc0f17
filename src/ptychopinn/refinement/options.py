"""What a refinement starts from, what it changes, and with which steps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ptychopinn.config.infer import Background, Likelihood
from ptychopinn.solvers.options import StepSchedule


def refinement_schedule(passes: int, *, noisy: bool = False, many_waves: bool = False) -> StepSchedule:
    """The best steps for a number of passes from a good start. Many small steps average noise.

    Parameters
    ----------
    many_waves:
        Whether a pattern is a sum over several waves: modes of the probe, or places of an exposure. Such passes
        converge slowly, and more momentum makes up for it. With free positions it harms some scans.
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
    """Which quantities a refinement changes, and how."""

    passes: int  # each uses every pattern once
    update_probe: bool = False  # its energy is conserved
    update_positions: bool = False  # by at most `MAX_MOVE_PX`; their mean is conserved
    update_flux: bool = False  # of every pattern; the mean stays 1
    update_background: Background | None = None  # the kind that is fitted
    # Modes by which the probe varies over the scan, to be fitted with their weights; 0 keeps those of the model. Needs
    # ``update_probe``.
    update_variation: int = 0
    # That the passes increase. None chooses Poisson counts where photons are few, and amplitudes elsewhere. Photons are
    # few where Poisson noise alone leaves a forward residual of 0.2 or more
    # (`ptychopinn.metrics.baselines.noise_residual`).
    likelihood: Likelihood | None = None
    schedule: StepSchedule | None = None  # None chooses `refinement_schedule` for the passes and the noise
    seed: int = 0  # of the order of the patterns
    # Spend little beside the passes: only the state after the last one is judged, by fewer patterns, and the slow phase
    # is solved only where that costs less than a pass. However few photons are, amplitudes are followed if no
    # likelihood is given, and no pattern is held out. The residual may rise by 2%.
    quick: bool = False
    # Add incoherent modes to the probe while held-out patterns are explained better, up to so many
    # (`ptychopinn.refinement.modes`); None keeps their number. Needs ``update_probe``.
    modes: int | None = None
