"""Pictures that the metric tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptychopinn.typing import ComplexArray

ObjectMaker = Callable[..., ComplexArray]


@pytest.fixture
def make_object() -> ObjectMaker:
    """A smooth random object: amplitude near 1, phase within about 1 rad, no symmetry."""

    def make(shape: tuple[int, int] = (96, 88), seed: int = 0, blur_px: float = 2.0) -> ComplexArray:
        rng = np.random.default_rng(seed)
        amplitude, phase = (gaussian_filter(rng.normal(size=shape), blur_px) for _ in range(2))
        amplitude = 0.8 + 0.1 * amplitude / amplitude.std()
        return amplitude * np.exp(0.3j * phase / phase.std())

    return make
