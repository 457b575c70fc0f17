"""Simulate probes."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from ptychopinn.config.simulation import ProbeKind
from ptychopinn.errors import ConfigError
from ptychopinn.typing import ComplexArray, FloatArray

_MODE_DECAY = 0.3  # energy of a mode relative to the previous one


def simulate_probe(kind: ProbeKind | str, size: int, *, photons: float, modes: int = 1) -> ComplexArray:
    """A probe, centred on its array and not random.

    Parameters
    ----------
    kind:
        Its kind; all lengths are proportional to ``size``.
    size:
        N.
    photons:
        Energy ``sum |P|^2`` over modes and pixels: mean counts of a pattern where the object is 1.
    modes:
        Mutually incoherent, orthogonal modes, each with 0.3 of the energy of the previous one (Hermite polynomials
        times the first, orthogonalised).

    Returns
    -------
    (modes, N, N) complex64, square root of counts.

    Raises
    ------
    ConfigError
        If photons, size or modes are not positive.
    """
    if not (photons > 0 and size >= 4 and 1 <= modes <= size):
        raise ConfigError(
            f"A probe with {photons} photons, {size} pixels and {modes} modes was asked for.",
            "Give more than 0 photons, at least 4 pixels and between 1 and size modes.",
        )
    probe = hermite_modes(_single_mode(ProbeKind(kind), size), modes)
    weights = _MODE_DECAY ** np.arange(modes)
    probe = probe * np.sqrt(photons * weights / weights.sum())[:, None, None]
    scaled: ComplexArray = probe.astype(np.complex64)
    return scaled


def probe_width_px(probe: ComplexArray) -> float:
    """Full width at half maximum of the amplitude of a (modes, N, N) probe.

    It is the diameter, in pixels, of the disc with the area where ``sqrt(sum |P|^2)`` exceeds half its maximum.
    """
    amplitude = np.sqrt((np.abs(probe) ** 2).sum(axis=0))
    return 2 * math.sqrt(float((amplitude > amplitude.max() / 2).sum()) / math.pi)


def _single_mode(kind: ProbeKind, size: int) -> ComplexArray:
    """(N, N) complex128 of any scale."""
    axis = np.arange(size) - (size - 1) / 2
    r2 = axis[:, None] ** 2 + axis[None, :] ** 2
    r = np.sqrt(r2)

    def soft_disc(radius: float, edge: float) -> FloatArray:
        blurred: FloatArray = gaussian_filter((r < radius).astype(np.float64), edge, mode="constant")
        return blurred

    waist = 0.16 * size
    curvature: ComplexArray = np.exp(0.5j * r2 / waist**2)
    match kind:
        case ProbeKind.DISC:
            return curvature * np.exp(-0.5 * r2 / waist**2) * soft_disc(0.2 * size, 0.02 * size)
        case ProbeKind.ANNULAR:
            ring = soft_disc(0.22 * size, 0.02 * size) - 0.9 * soft_disc(0.09 * size, 0.02 * size)
            return curvature * ring
        case ProbeKind.GAUSSIAN:
            gaussian: ComplexArray = np.exp((-0.5 + 0.25j) * r2 / (0.12 * size) ** 2)
            return gaussian
        case ProbeKind.DEFOCUSED:
            # An aperture of 0.13 cycles per pixel, 1.2 Fresnel zones out of focus.
            k = np.fft.fftfreq(size)
            k2 = (k[:, None] ** 2 + k[None, :] ** 2) / 0.13**2
            aperture = expit((1 - np.sqrt(k2)) * 30)
            wave: ComplexArray = np.fft.fftshift(np.fft.ifft2(aperture * np.exp(-2.4j * math.pi * k2)))
            # fftshift centres it on pixel N // 2: if N is even, move it the half pixel to (N - 1) / 2.
            shift = np.exp(1j * math.pi * k * (1 - size % 2))
            wave = np.fft.ifft2(np.fft.fft2(wave) * shift[:, None] * shift[None, :])
            return wave * np.exp(-((r / (0.4 * size)) ** 8))


def hermite_modes(base: ComplexArray, modes: int) -> ComplexArray:
    """Hermite polynomials times a mode (N, N), orthonormal: (modes, N, N) complex128, the first along ``base``."""
    size = base.shape[0]
    axis = np.arange(size) - (size - 1) / 2
    energy = np.abs(base) ** 2
    width = math.sqrt(float((energy * axis[:, None] ** 2).sum() / energy.sum()))
    t = axis / (2 * width)
    orders = [(i, total - i) for total in range(modes) for i in range(total + 1)][:modes]
    found: list[ComplexArray] = []
    for a, b in orders:
        y, x = (np.polynomial.hermite.hermval(t, np.eye(modes)[order]) for order in (a, b))
        mode = base * y[:, None] * x[None, :]
        for _ in range(2):  # once more for rounding
            for other in found:
                mode = mode - np.vdot(other, mode) * other
        found.append(mode / np.linalg.norm(mode))
    return np.stack(found)
