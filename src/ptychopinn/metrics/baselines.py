"""Forward residuals that need no object: of Poisson noise, and of one pattern for all."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import gammaln

from ptychopinn.data.patterns import Patterns
from ptychopinn.typing import BoolArray, FloatArray

_TABLE_MAX = 400.0  # mean counts; from there on the series is exact enough
_TABLE_POINTS = 400
_NOISY_RESIDUAL = 0.2  # photons are few where Poisson noise alone leaves this forward residual


def poisson_residual(counts: FloatArray, good: BoolArray) -> float:
    """Forward residual R of a perfect model: what Poisson noise leaves of the amplitudes.

    Parameters
    ----------
    counts:
        (n, N, N) measured counts.
    good:
        (N, N) bool: pixels that measure.

    Returns
    -------
    ``sqrt(sum E (sqrt n - sqrt I)^2 / sum I)``; 0 without a count. The expected counts I of a pixel have the mean and,
    beyond the noise, the variance of its counts over the patterns; of distributions with these two, the one of two
    values of which one is 0 is taken.
    """
    seen = np.asarray(counts, np.float64)[:, good]
    mean = seen.mean(axis=0)
    total = float(mean.sum())
    if total <= 0:
        return 0.0
    excess = np.maximum(seen.var(axis=0) - mean, 0.0)
    share = mean**2 / np.maximum(mean**2 + excess, 1e-300)  # of the patterns in which the pixel has light
    high = mean / np.maximum(share, 1e-300)
    return math.sqrt(float((share * _squared_error(high)).sum()) / total)


def is_noisy(patterns: Patterns) -> bool:
    """Whether photons are so few that passes follow the likelihood of Poisson counts."""
    return noise_residual(patterns) >= _NOISY_RESIDUAL


def noise_residual(patterns: Patterns) -> float:
    """Forward residual that Poisson noise alone leaves, estimated from the mean pattern.

    The mean square deviation of the square root of a Poisson count from sqrt(I) is 1/4 for a large mean I, and I for a
    small one. (1 - exp(-4 I)) / 4 interpolates.
    """
    mean = patterns.mean_counts
    return math.sqrt(float((1 - np.exp(-4 * mean)).sum() / 4 / max(mean.sum(), 1e-12)))


def mean_pattern_residual(counts: FloatArray, good: BoolArray) -> float:
    """Forward residual R if the root of the mean counts is the model of each of (n, N, N) patterns."""
    seen = np.asarray(counts, np.float64)[:, good]
    total = float(seen.sum())
    if total <= 0:
        return 0.0
    model = np.sqrt(seen.mean(axis=0))
    # sum (A - m)^2 = sum A^2 - 2 m sum A + n m^2, with sum A^2 = n m^2
    cross = float((np.sqrt(seen).sum(axis=0) * model).sum())
    return math.sqrt(max(2 - 2 * cross / total, 0.0))


def _squared_error(mean: FloatArray) -> FloatArray:
    """``E (sqrt n - sqrt I)^2`` of Poisson counts n of mean I."""
    at, error = _table()
    high = np.maximum(mean, _TABLE_MAX)
    series = 0.25 + 7 / (64 * high)
    low: FloatArray = np.interp(np.sqrt(np.minimum(mean, _TABLE_MAX)), at, error)
    return np.where(mean > _TABLE_MAX, series, low)


@lru_cache(maxsize=1)
def _table() -> tuple[FloatArray, FloatArray]:
    """Roots of mean counts from 0 to that of `_TABLE_MAX`, and the expected squared error at each."""
    roots = np.linspace(0, math.sqrt(_TABLE_MAX), _TABLE_POINTS)
    means = np.maximum(roots**2, 1e-12)[:, None]
    counts = np.arange(int(_TABLE_MAX + 12 * math.sqrt(_TABLE_MAX)))
    likely = np.exp(counts * np.log(means) - means - gammaln(counts + 1))
    root = (likely * np.sqrt(counts)).sum(axis=1)
    error: FloatArray = 2 * means[:, 0] - 2 * np.sqrt(means[:, 0]) * root
    return roots, error
