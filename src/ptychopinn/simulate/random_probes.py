"""Random probes of any kind, and random variations of a probe."""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from scipy.special import expit

from ptychopinn.forward import detector_ramp
from ptychopinn.simulate.probes import hermite_modes
from ptychopinn.typing import ComplexArray, FloatArray

_STEEPNESS = 8  # of the window that keeps a probe away from the edges of its array


def draw_probe(size: int, modes: int, rng: np.random.Generator) -> ComplexArray:
    """A probe of a random kind, like those of X-ray and electron optics: (modes, N, N) complex64 of energy 1.

    Half of them are soft-edged discs, rings and Gaussians with a spherical phase; half are the far field of an aperture
    with a central stop, out of focus and aberrated (astigmatism, coma). Both lie a pixel or so off the detector's
    centre. The first mode carries most of the energy.
    """
    base = _aperture_probe(size, rng) if rng.random() < 0.5 else _focused_probe(size, rng)
    base = base * _window(size) * detector_ramp(rng.normal(0, 0.7, 2), size)
    weights = rng.uniform(0.02, 0.5) ** np.arange(modes)
    probe = hermite_modes(base, modes) * np.sqrt(weights / weights.sum())[:, None, None]
    drawn: ComplexArray = probe.astype(np.complex64)
    return drawn


def vary_probe(probe: ComplexArray, rng: np.random.Generator) -> ComplexArray:
    """A random variation of a probe: defocused, wider or narrower, and slightly off the detector's centre.

    (modes, N, N) complex64, and the energy stays the same. The width deviates by a tenth, the phase at the rim by half
    a radian.
    """
    size = probe.shape[-1]
    y, x = _axes(size)
    amplitude = np.sqrt((np.abs(probe) ** 2).sum(axis=0))
    spread2 = float((amplitude**2 * (y**2 + x**2)).sum() / (amplitude**2).sum())
    r2 = (y**2 + x**2) / spread2
    phase = (
        rng.normal(0, 0.5) * r2 + rng.normal(0, 0.15) * (y**2 - x**2) / spread2 + rng.normal(0, 0.3) * y * x / spread2
    )
    # Wider or narrower by a Gaussian factor: smooth, and exact for a Gaussian probe.
    width = math.exp(rng.normal(0, 0.1))
    factor = np.exp(np.clip(0.5 * r2 * (1 - 1 / width**2), -6, 2) + 1j * phase)
    moved = probe * factor * detector_ramp(rng.normal(0, 0.3, 2), size) * _window(size)
    norm = np.linalg.norm(probe) / np.linalg.norm(moved)
    varied: ComplexArray = (moved * norm).astype(np.complex64)
    return varied


def _axes(size: int) -> tuple[FloatArray, FloatArray]:
    axis = np.arange(size) - (size - 1) / 2
    return axis[:, None], axis[None, :]


def _window(size: int) -> FloatArray:
    y, x = _axes(size)
    window: FloatArray = np.exp(-((np.hypot(y, x) / (0.4 * size)) ** _STEEPNESS))
    return window


def _aperture_probe(size: int, rng: np.random.Generator) -> ComplexArray:
    """Disc, ring or Gaussian with a spherical phase, (N, N)."""
    y, x = _axes(size)
    radius, edge = rng.uniform(0.1, 0.28) * size, rng.uniform(0.01, 0.06) * size
    r = np.hypot(y * math.exp(rng.normal(0, 0.08)), x)
    amplitude = expit((radius - r) / (edge / 2))
    if rng.random() < 0.3:
        hole = rng.uniform(0.2, 0.5) * radius
        amplitude = amplitude - rng.uniform(0.5, 1) * expit((hole - r) / (edge / 2))
    if rng.random() < 0.6:
        amplitude = amplitude * np.exp(-0.5 * (r / rng.uniform(0.08, 0.25) / size) ** 2)
    curved: ComplexArray = amplitude * np.exp(1j * rng.uniform(-2.5, 2.5) * (r / radius) ** 2)
    return curved


def _focused_probe(size: int, rng: np.random.Generator) -> ComplexArray:
    """Far field of an aberrated aperture with a central stop, (N, N)."""
    k = scipy.fft.fftfreq(size)
    cut = rng.uniform(0.06, 0.2)  # cycles a pixel
    v, u = k[:, None] / cut, k[None, :] / cut
    r2 = v**2 + u**2
    aperture = expit((1 - np.sqrt(r2)) * 25)
    if rng.random() < 0.5:
        aperture = aperture * expit((np.sqrt(r2) - rng.uniform(0.1, 0.5)) * 25)
    # Defocus spreads the beam over |phase gradient| / (2 pi cut) pixels: keep it inside the window.
    most = 0.25 * size * math.pi * cut
    phase = rng.uniform(-most, most) * r2
    phase = phase + rng.normal(0, 0.5) * (v**2 - u**2) + rng.normal(0, 1) * v * u + rng.normal(0, 0.3) * r2 * (v + u)
    half = np.exp(1j * math.pi * (k[:, None] + k[None, :]) * (1 - size % 2))  # centred at (N - 1) / 2
    wave: ComplexArray = scipy.fft.fftshift(scipy.fft.ifft2(aperture * np.exp(1j * phase) * half))
    return wave
