"""What a real scan has beside object and probe: a beam that flickers or varies, a background, a stage that is off."""

from __future__ import annotations

import math

import numpy as np

from ptychopinn.typing import ComplexArray, FloatArray

_FLY_POINTS = 5  # at which an exposure is computed
_BACKGROUND_WIDTH = 1 / 2  # of N: standard deviation of the Gaussian
_PERIODS = 3  # of the astigmatism in a scan


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


def aberration_course(count: int, deviation_rad: float, rng: np.random.Generator) -> FloatArray:
    """Defocus and astigmatism of each pattern, (count, 2) float64: the phase that `aberrations` of 1 put into the beam.

    The defocus drifts evenly from one end to the other, the astigmatism swings three times. Together they have the
    given root mean square over the scan, and both have the mean 0.
    """
    time = (np.arange(count) + 0.5) / count - 0.5
    course = np.stack([time, np.sin(2 * math.pi * (_PERIODS * time + rng.uniform()))], axis=1)
    course -= course.mean(axis=0)
    spread = np.sqrt((course**2).mean(axis=0))
    scaled: FloatArray = course * (deviation_rad / math.sqrt(2)) / np.maximum(spread, np.finfo(float).tiny)
    return scaled


def aberrations(probe: ComplexArray) -> FloatArray:
    """Phases of defocus and astigmatism in the far field of a probe, (2, N, N) float64, DC first.

    Weighted by the power of the (modes, N, N) probe there, each has the root mean square 1 rad, and no part that is
    constant or a ramp: they do not shift the probe.
    """
    power = (np.abs(np.fft.fft2(probe)) ** 2).sum(axis=0)
    k = np.fft.fftfreq(probe.shape[-1])
    y, x = np.meshgrid(k, k, indexing="ij")
    known = [np.ones_like(y), y, x]
    for shape in (y**2 + x**2, y**2 - x**2):
        rest = shape
        for other in known:  # Gram-Schmidt, weighted
            rest = rest - other * (power * other * rest).sum() / (power * other**2).sum()
        known.append(rest * math.sqrt(power.sum() / (power * rest**2).sum()))
    return np.stack(known[3:])


def aberrated(probe: ComplexArray, course: FloatArray) -> ComplexArray:
    """The probe of each pattern, (b, modes, N, N), with b rows of `aberration_course`; each has the same energy."""
    phase = np.einsum("bk,kyx->byx", course, aberrations(probe))
    probes: ComplexArray = np.fft.ifft2(np.fft.fft2(probe) * np.exp(1j * phase)[:, None]).astype(probe.dtype)
    return probes
