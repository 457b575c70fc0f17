"""Quick Poisson counts at the edges of their approximation. Requirements: specs/02-simulation.md."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptychopinn.simulate.noise import EXACT_BELOW, quick_poisson


class _Extreme:
    """A generator whose normal numbers are all far out on one side."""

    def __init__(self, z: float) -> None:
        self._z, self._rng = z, np.random.default_rng(0)

    def standard_normal(self, size: int, dtype: Any) -> Any:
        return np.full(size, self._z, dtype)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rng, name)


@pytest.mark.parametrize("z", [-8.0, -6.0, -5.5, 0.0, 8.0])
def test_counts_are_never_negative(z: float) -> None:
    """A count below 0 has no square root: one such draw ended a training of 35,000 patterns."""
    mean = np.array([[0.0, 1.0, 5.0], [EXACT_BELOW, EXACT_BELOW + 1, 1e6]], np.float32)
    counts = quick_poisson(mean, _Extreme(z))  # type: ignore[arg-type]
    assert counts.min() >= 0
    np.testing.assert_array_equal(counts, np.rint(counts))
