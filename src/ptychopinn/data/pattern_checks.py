"""Warn of empty, dim and saturated patterns whenever a scan is read."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.statistics import PatternStatistics
from ptychopinn.typing import FloatArray, IntArray

_DIM = 0.01  # of the median pattern
_KEY = "patterns"


def check_patterns(counts: FloatArray, dtype: np.dtype[Any], seen: PatternStatistics, findings: Findings) -> None:
    """Warn of single patterns.

    Parameters
    ----------
    counts:
        (n,) photons in each pattern.
    dtype:
        Stored dtype of the patterns.
    seen:
        Their statistics.
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


def preview(indices: IntArray) -> str:
    """Show the first few of some numbers."""
    shown = ", ".join(map(str, indices[:5].tolist()))
    return f"{shown}, ..." if len(indices) > 5 else shown
