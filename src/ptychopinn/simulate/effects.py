"""What a real scan has beside object and probe: a beam that flickers, a background, a stage that is off or moves."""

from __future__ import annotations

import math

import numpy as np

from ptychopinn.typing import FloatArray

_FLY_POINTS = 5  # at which an exposure is computed
_BACKGROUND_WIDTH = 1 / 2  # of N: standard deviation of the Gaussian


def draw_flux(count: int, deviation: float, rng: np.random.Generator) -> FloatArray:
    """Factors of the dose, (count,) float32: log-normal of mean 1 and standard deviation ``deviation``."""
    variance = math.log1p(deviation**2)
    factors: FloatArray = np.exp(rng.normal(-variance / 2, math.sqrt(variance), count)).astype(np.float32)
    return factors


def background_shape(size: int) -> FloatArray:
    """A Gaussian in the middle of the detector, N / 2 wide (standard deviation): (N, N) float32 of sum 1."""
    line = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / (_BACKGROUND_WIDTH * size)) ** 2)
    line /= line.sum()
    return np.outer(line, line).astype(np.float32)


def position_errors(count: int, deviation_px: float, rng: np.random.Generator) -> FloatArray:
    """Independent normal errors, (count, 2) float64 (y, x) in pixels."""
    return rng.normal(0, deviation_px, (count, 2))


def stage_drift(count: int, end_px: float, rng: np.random.Generator) -> FloatArray:
    """Drift over a scan, (count, 2) float64 (y, x) in pixels: quadratic in time, from 0 to ``end_px``."""
    angle = rng.uniform(0, 2 * math.pi)
    distance = end_px * np.linspace(0, 1, count) ** 2
    return np.outer(distance, (math.sin(angle), math.cos(angle)))


def fly_offsets(distance_px: float) -> FloatArray:
    """Places of an exposure that moves in x: (points, 2) float64 (y, x) in pixels from its middle.

    They are the middles of equal pieces of the way, one if there is no motion.
    """
    points = _FLY_POINTS if distance_px > 0 else 1
    along = ((np.arange(points) + 0.5) / points - 0.5) * distance_px
    return np.stack([np.zeros(points), along], axis=1)
