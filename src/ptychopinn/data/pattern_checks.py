"""Warn of empty, dim and saturated patterns and of a background whenever a scan is read."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptychopinn.data.bad_values import Unmeasured
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.lazy_rows import LazyRows
from ptychopinn.data.statistics import PatternStatistics
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.typing import AnyArray, BoolArray, FloatArray, IntArray

_DIM = 0.01  # of the median pattern
_KEY = "patterns"
_SAMPLE = 64  # patterns that show at which value a detector ends
_OFTEN, _MOST = 20, 0.05  # values at the end of its range: at least so many, at most this share
_MIN_PEAK = 100.0  # counts: below, equal values are no surprise
_NEAR = 0.8  # of the largest value: a range that ends has fewer values up to it than at it
_FLAT = 1.25  # ratio of two low percentiles of the mean counts of a pixel: diffraction falls off faster
_BACKGROUND = 0.03  # of all counts


def check_patterns(counts: FloatArray, dtype: np.dtype[Any], seen: PatternStatistics, findings: Findings) -> None:
    """Warn of single patterns.

    Parameters
    ----------
    counts:
        (n,) photons in each pattern.
    findings:
        The warnings are added here.
    """
    n = len(counts)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        findings.warning(_KEY, f"{len(empty)} of {n} patterns are empty: {preview(empty)}.", "Remove them.")
    dim = np.flatnonzero((counts > 0) & (counts < _DIM * np.median(counts)))
    if len(dim):
        findings.warning(
            _KEY,
            f"{len(dim)} of {n} patterns hold under {_DIM:.0%} of the median counts: {preview(dim)}.",
            "Remove them if the shutter was closed.",
        )
    if seen.saturated:
        findings.warning(
            _KEY,
            f"{seen.saturated} values in {len(seen.saturated_in)} of {n} patterns are the largest that {dtype} holds: "
            f"saturated: {preview(seen.saturated_in)}.",
            "Refinement takes them as lower bounds; a network does not.",
        )


def plateau_level(
    patterns: AnyArray | LazyRows, bad: Unmeasured, counts_per_unit: float, findings: Findings, *, squared: bool
) -> float | None:
    """The value at which patterns (n, N, N) are cut off, of squares if they are amplitudes; None if they are not.

    Many values are the largest of all there, and few lie close below it.
    """
    chosen = evenly_spread(patterns.shape[0], _SAMPLE)
    values = np.asarray(patterns[chosen])
    if bad.values is not None:
        values = values.astype(np.float64)
        bad.values.put(values, chosen, np.nan)
    if bad.pixels.any():
        values = values[:, ~bad.pixels]
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    peak = float(values.max(initial=0))
    level = peak**2 if squared else peak
    if level * counts_per_unit < _MIN_PEAK:
        return None
    highest = values[values >= values.dtype.type(peak * _NEAR)].astype(np.float64)
    at = int((highest >= peak * (1 - 1e-6)).sum())
    near = int((highest >= peak * _NEAR).sum()) - at
    if not max(_OFTEN, 2 * near) <= at <= _MOST * values.size:
        return None
    findings.warning(
        _KEY,
        f"{at} values of {len(chosen)} patterns are {peak:.6g}, the largest of all, and hardly any are close below: "
        "they are taken as saturated.",
        "If they are not, give a higher --saturation-counts.",
        "DATA-054",
    )
    return level


def check_background(mean_counts: FloatArray, bad_pixels: BoolArray, findings: Findings) -> None:
    """Warn if the darkest fifth of the pixels of the mean (N, N) counts are all alike and not dark."""
    good = mean_counts[~bad_pixels]
    low, level, high = np.percentile(good, [2, 10, 20]) if good.size else (0.0, 0.0, 0.0)
    share = float(high) * good.size / max(float(good.sum()), 1e-300)
    if low > 0 and high < _FLAT * low and share > _BACKGROUND:
        findings.warning(
            _KEY,
            f"The darkest fifth of the pixels have {low:.3g} to {high:.3g} counts a pattern: {share:.0%} of all counts "
            "are a background.",
            f"Subtract it (ptychopinn convert --background {level:.3g}), or fit it (--refine-background smooth).",
            "DATA-128",
        )


def preview(indices: IntArray) -> str:
    """Show the first few of some numbers."""
    shown = ", ".join(map(str, indices[:5].tolist()))
    return f"{shown}, ..." if len(indices) > 5 else shown
