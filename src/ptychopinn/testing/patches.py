"""Patches of whole scans, in order, and how far they are apart."""

from __future__ import annotations

import numpy as np

from ptychopinn.reconstructor import Prediction
from ptychopinn.typing import ComplexArray


def patches_of(prediction: Prediction, count: int) -> ComplexArray:
    """(count, p, p) complex64: patches by the index of their pattern; 0 where none came."""
    size = prediction.patch_size
    found = np.zeros((count, size, size), np.complex64)
    for batch in prediction.batches:
        found[batch.indices] = batch.patches
    return found


def difference(one: ComplexArray, other: ComplexArray) -> float:
    """Largest absolute difference; infinite where something is not finite, or shapes differ."""
    if one.shape != other.shape:
        return np.inf
    worst = float(np.abs(one - other).max(initial=0.0))
    return worst if np.isfinite(worst) else np.inf
