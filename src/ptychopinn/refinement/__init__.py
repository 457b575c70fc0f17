"""Refine a predicted object with a few passes of the solver, through the same forward model.

The network gives the large scales in one step. The passes then fit every measured count. Before a pass, the slow phase
of the object is solved (`ptychopinn.solvers.slow_phase`). The pass itself is that of `ptychopinn.solvers.engine`, with
a schedule for a good start. The forward residual decides which state is returned: the result never explains the
patterns worse than the prediction, nor worse than a flat object.

Where photons are few, the passes follow the likelihood of Poisson counts, and its residual decides. The square root of
a small count has a mean below the root of the mean, so fitted amplitudes would be biased. Small steps then average the
noise. Patterns that no pass uses decide, because a pass may fit the noise instead of the object.
"""

from ptychopinn.refinement.options import RefineOptions, StartKind, refinement_schedule
from ptychopinn.refinement.passes import refine
from ptychopinn.refinement.result import Refinement, RefinementSummary

__all__ = ["RefineOptions", "Refinement", "RefinementSummary", "StartKind", "refine", "refinement_schedule"]
