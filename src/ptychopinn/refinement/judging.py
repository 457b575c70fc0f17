"""Which patterns judge a refinement, and what they decide."""

from __future__ import annotations

import logging

import numpy as np

from ptychopinn.arrays import slices_of
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.subsampling import split_every
from ptychopinn.typing import FloatArray, IntArray

_log = logging.getLogger(__name__)
_HELD_OUT, _MIN_HELD_OUT = 8, 4  # then every 8th pattern is held out from the passes, if that gives at least 4
_READ = 32  # patterns read at a time
SURE_DEVIATIONS = 1.5
"""Where photons are few, a pass is accepted only if it lowers the residual by this many standard errors."""
# The slow phase is no longer solved once its standard deviation over the positions is below the first limit, or once it
# lowers the residual by a smaller fraction than the second.
_SETTLED_RAD = 0.005
_SETTLED_GAIN = 1e-4


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
