"""Difference of patches."""

from __future__ import annotations

import numpy as np

from ptychopinn.typing import ComplexArray


def difference(one: ComplexArray, other: ComplexArray) -> float:
    """Largest absolute difference; infinite if values are not finite or shapes differ."""
    if one.shape != other.shape:
        return np.inf
    worst = float(np.abs(one - other).max(initial=0.0))
    return worst if np.isfinite(worst) else np.inf
