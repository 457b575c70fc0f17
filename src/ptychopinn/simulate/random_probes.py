"""Random probes of any kind, and random variations of a probe."""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from ptychopinn.forward import detector_ramp
from ptychopinn.simulate.probes import hermite_modes
from ptychopinn.typing import ComplexArray, FloatArray

_STEEPNESS = 8  # of the window that keeps a probe away from the edges of its array
_DISC_SHARE = 1 / 3  # of probes that are drawn as discs, rings and Gaussians
_VARIED_WINDOW = 0.4  # radius of the window of varied probes, in N
_WINDOW_RADII = (0.4, 0.65)  # of the window of drawn ones
_OFF_MIDDLE = 0.025  # of N: standard deviation of the place of a probe in its array
_MODE_DECAY = (0.003, 0.6)  # energy of a mode relative to the previous one; the lowest is nearly one mode
_APERTURE_RADII = (0.06, 0.4)  # cycles a pixel: above a half it would be wider than the detector
_MAX_DEFOCUS_RADIUS = 0.34  # of N: radius of the beam out of focus
_MIN_BEAM_RADIUS = 0.05  # of N: a smaller beam sees hardly any of its patch


def draw_probe(size: int, modes: int, rng: np.random.Generator) -> ComplexArray:
    """A probe of a random kind, like those of X-ray and electron optics: (modes, N, N) complex64 of energy 1.

    One in three is a soft-edged disc, ring or Gaussian with a spherical phase. The others are far fields of a round or
    rectangular aperture, which may have a central stop, roughness and aberrations, and be out of focus. The aperture's
    image takes between a twentieth and nearly all of the detector. All lie a pixel or so off the detector's centre and
    some per cent of N off the middle of the array, and some reach its edges.
    The first mode carries most of the energy.
    """
    base = _disc_probe(size, rng) if rng.random() < _DISC_SHARE else _focused_probe(size, rng)
    base = base * _window(size, rng.uniform(*_WINDOW_RADII)) * detector_ramp(rng.normal(0, 0.7, 2), size)
    weights = math.exp(rng.uniform(*np.log(_MODE_DECAY))) ** np.arange(modes)
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
    moved = probe * factor * detector_ramp(rng.normal(0, 0.3, 2), size) * _window(size, _VARIED_WINDOW)
    norm = np.linalg.norm(probe) / np.linalg.norm(moved)
    varied: ComplexArray = (moved * norm).astype(np.complex64)
    return varied


def _axes(size: int) -> tuple[FloatArray, FloatArray]:
    axis = np.arange(size) - (size - 1) / 2
    return axis[:, None], axis[None, :]


def _window(size: int, radius: float) -> FloatArray:
    """A round window of a radius in N, (N, N)."""
    y, x = _axes(size)
    window: FloatArray = np.exp(-((np.hypot(y, x) / (radius * size)) ** _STEEPNESS))
    return window


def _step(distance: FloatArray, steepness: float) -> FloatArray:
    """A soft step: 1 where the distance from the edge is negative, else 0."""
    step: FloatArray = expit(-distance * steepness)
    return step


def _disc_probe(size: int, rng: np.random.Generator) -> ComplexArray:
    """Disc, ring or Gaussian with a spherical phase, (N, N)."""
    y, x = _axes(size)
    y_off, x_off = rng.normal(0, _OFF_MIDDLE * size, 2)
    y, x = y - y_off, x - x_off
    radius, edge = rng.uniform(0.1, 0.28) * size, rng.uniform(0.01, 0.06) * size
    r = np.hypot(y * math.exp(rng.normal(0, 0.08)), x)
    amplitude = _step(r - radius, 2 / edge)
    if rng.random() < 0.3:
        amplitude = amplitude - rng.uniform(0.5, 1) * _step(r - rng.uniform(0.2, 0.5) * radius, 2 / edge)
    if rng.random() < 0.6:
        amplitude = amplitude * np.exp(-0.5 * (r / rng.uniform(0.08, 0.25) / size) ** 2)
    curved: ComplexArray = amplitude * np.exp(1j * rng.uniform(-2.5, 2.5) * (r / radius) ** 2)
    return curved


def _focused_probe(size: int, rng: np.random.Generator) -> ComplexArray:
    """Far field of an aberrated aperture, in or out of focus, (N, N)."""
    k = scipy.fft.fftfreq(size)
    cut = math.exp(rng.uniform(*np.log(_APERTURE_RADII)))
    v, u = k[:, None] / cut, k[None, :] / cut
    r2 = v**2 + u**2
    phase = _defocus_rad(size, cut, rng) * r2
    phase = phase + rng.normal(0, 0.5) * (v**2 - u**2) + rng.normal(0, 1) * v * u + rng.normal(0, 0.3) * r2 * (v + u)
    if rng.random() < 0.5:
        phase = phase + rng.uniform(0, 0.6) * _roughness(r2.shape, cut, rng)
    y_off, x_off = rng.normal(0, _OFF_MIDDLE * size, 2) - (1 - size % 2) / 2  # off (N - 1) / 2
    moved = np.exp(-2j * math.pi * (k[:, None] * y_off + k[None, :] * x_off))
    spectrum = _aperture(v, u, cut, rng) * np.exp(1j * phase) * moved
    wave: ComplexArray = scipy.fft.fftshift(scipy.fft.ifft2(spectrum))
    return wave


def _defocus_rad(size: int, cut: float, rng: np.random.Generator) -> float:
    """Phase of a random defocus at the rim of an aperture of ``cut`` cycles a pixel.

    The beam's radius out of focus is the phase's gradient there over 2 pi: phase / (pi cut) pixels.
    """
    in_focus = 0.6 / cut  # radius of the first dark ring, pixels
    least = max(_MIN_BEAM_RADIUS * size - in_focus, 0)
    return float(rng.choice([-1, 1]) * rng.uniform(least, _MAX_DEFOCUS_RADIUS * size) * math.pi * cut)


def _aperture(v: FloatArray, u: FloatArray, cut: float, rng: np.random.Generator) -> FloatArray:
    """Transmission of an aperture of radius 1 at frequencies (v, u) over ``cut``: round or rectangular."""
    steepness = rng.uniform(10, 40)
    r = np.hypot(v, u)
    if rng.random() < 0.75:
        aperture = _step(r - 1, steepness)
    else:
        aperture = _step(np.abs(v) - rng.uniform(0.5, 0.9), steepness) * _step(np.abs(u) - 0.9, steepness)
    if rng.random() < 0.5:
        aperture = aperture * (1 - _step(r - rng.uniform(0.1, 0.6), steepness))
    if rng.random() < 0.5:
        aperture = aperture * np.exp(rng.uniform(0, 0.4) * _roughness(r.shape, cut, rng))
    return aperture


def _roughness(shape: tuple[int, ...], cut: float, rng: np.random.Generator) -> FloatArray:
    """Smooth noise over frequencies with a tenth to a half of an aperture as its length, unit deviation."""
    size = shape[-1]
    sigma = rng.uniform(0.1, 0.5) * cut * size
    noise: FloatArray = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    noise /= noise.std()
    return noise
