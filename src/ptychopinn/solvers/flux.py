"""The flux of each pattern, fitted to its counts after a pass."""

from __future__ import annotations

import numpy as np

from ptychopinn.arrays import Array
from ptychopinn.data.patterns import Patterns
from ptychopinn.typing import FloatArray

_RANGE = 4.0  # the flux of a pattern is between 1/4 and 4
# Exponent of a correction. Object and flux can both explain light that varies slowly over the scan. With full
# corrections and the momentum of the object, each overshoots what the other leaves, and both run away.
_STEP = 0.7
_TINY = float(np.finfo(np.float32).tiny)


def counts_and_model(
    measured: Array, good: Array | None, intensity: Array, background: Array | None, patterns: Patterns
) -> list[Array]:
    """(b, 1) and (b, 1) float64: measured counts less the background, and counts of the object.

    Bad and saturated pixels are left out.

    Parameters
    ----------
    measured, good:
        (b, N, N) float32 amplitudes, and where they were measured, of `Patterns.measured`.
    intensity:
        (b, N, N) float32 modelled counts without the background.
    background:
        (N, N) float32, or None for none.
    """
    xp = patterns.library.xp
    counts = measured**2 if background is None else measured**2 - background
    pair = [patterns.unsaturated(values, measured) for values in (counts, intensity)]
    if good is not None:
        pair = [values * good for values in pair]
    return [xp.sum(values, axis=(1, 2), dtype=xp.float64)[:, None] for values in pair]


def fit_flux(flux: FloatArray, measured: FloatArray, modelled: FloatArray) -> FloatArray:
    """The flux, (n,) float32, moved towards what fits the counts of every pattern. Its mean stays 1.

    Parameters
    ----------
    flux:
        (n,) float32 of the model.
    measured, modelled:
        (n,) float64 of `counts_and_model`.
    """
    factor = np.where((measured > 0) & (modelled > 0), measured / np.maximum(modelled, _TINY), 1.0)
    fitted: FloatArray = np.clip(flux * factor**_STEP, 1 / _RANGE, _RANGE)
    fitted = (fitted / fitted.mean()).astype(np.float32)
    return fitted
