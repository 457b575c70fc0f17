"""What a refinement returns."""

from __future__ import annotations

from dataclasses import dataclass

from ptychopinn.arrays import Array
from ptychopinn.config.infer import Likelihood
from ptychopinn.scan_model import ScanModel
from ptychopinn.short_repr import ShortRepr


@dataclass(frozen=True)
class RefinementSummary:
    """Figures of a refinement."""

    likelihood: Likelihood  # that the passes followed
    judged_by: Likelihood  # whose residual decided
    # Forward residuals (`ptychopinn.metrics.quality.ForwardResidual`) of the prediction and of the result, over evenly
    # spread patterns, or over those that were held out.
    residual_before: float
    residual_after: float
    passes_asked: int
    passes_done: int  # fewer after a cancellation
    passes_kept: int  # in the result; 0 if none was better
    probe: bool  # whether the probe was refined
    moved_px: float | None  # root mean square displacement of the positions in the result; None if they were fixed
    from_flat: bool = False  # whether a flat object, which explained the patterns better, was the start
    positions_reset: int = 0  # positions that moved too far and were set back to their given values
    variation_share: float | None = None  # of the probe's energy that varies over the scan; None if it was not fitted
    weights_reset: int = 0  # patterns whose weights on a varying probe ran away and were set to 0
    flux_deviation: float | None = None  # standard deviation of the flux (the mean is 1); None if it was not fitted
    background_share: float | None = None  # of the counts that the background explains; None if it was not fitted
    held_out: int = 0  # patterns that the passes did not use, because photons are few, and that judged them


@dataclass(frozen=True, eq=False, repr=False)
class Refinement(ShortRepr):
    """Result of `ptychopinn.refinement.refine`."""

    # (H, W) complex64 of the start's library, in its frame. Pixels that were not covered are unchanged.
    object: Array
    model: ScanModel  # quantities that were not refined are unchanged
    summary: RefinementSummary
