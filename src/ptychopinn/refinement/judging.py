"""Which patterns judge a refinement, and what they decide."""

from __future__ import annotations

import logging

import numpy as np

from ptychopinn.arrays import slices_of
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.subsampling import split_every
from ptychopinn.typing import FloatArray, IntArray

_log = logging.getLogger(__name__)
_HELD_OUT, _MIN_HELD_OUT = 8, 4  # where photons are few, every 8th pattern is held out, if these are 4 or more
_READ = 32  # patterns read at a time
SURE_DEVIATIONS = 1.5
"""Where photons are few, a pass is accepted only if it lowers the residual by this many standard errors."""
# The slow phase is negligible if its standard deviation over the positions, or the fraction by which it lowers the
# residual, is below these.
_SETTLED_RAD = 0.005
_SETTLED_GAIN = 1e-4


def split_used_and_held_out(patterns: Patterns, *, noisy: bool) -> tuple[IntArray, IntArray]:
    """Indices of the patterns that the passes use, and of those that judge.

    Every pattern does both, unless the scan is noisy and has 32 or more.
    """
    every = np.arange(len(patterns))
    if not noisy or len(patterns) < _HELD_OUT * _MIN_HELD_OUT:
        return every, every
    used, held = split_every(every, _HELD_OUT)
    if not any(patterns.data.counts(held[part]).any() for part in slices_of(len(held), _READ)):
        return every, every  # patterns without a photon cannot judge
    _log.info("Few photons: %d patterns are held out to judge the refinement.", len(held))
    return used, held


def is_negligible(phases: FloatArray, before: FloatArray, after: FloatArray) -> bool:
    """Whether a slow phase was too small, or helped too little, to be solved again.

    Parameters
    ----------
    phases:
        (n,) its values at the positions, rad.
    before, after:
        Contributions to the squared residual (`ptychopinn.metrics.quality.ForwardResidual`) without and with it.
    """
    small = float(phases.std()) < _SETTLED_RAD
    return small or not after.sum() < (1 - _SETTLED_GAIN) ** 2 * before.sum()
