"""Align a refined probe with its guess: object and probe may shift together without changing the patterns."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from ptychopinn.interpolation import shift_probe
from ptychopinn.typing import ComplexArray, FloatArray


def register_probe(probe: ComplexArray, guess: ComplexArray) -> ComplexArray:
    """Shift a refined probe to where it overlaps its guess best.

    The patterns do not change when probe and object shift together, so a refined probe may have drifted with its
    object. The shift maximises the complex overlap ``sum_mk |<G_m, T_s P_k>|^2``, which does not depend on how
    incoherent modes are mixed.

    Parameters
    ----------
    probe, guess:
        (modes, N, N) complex; their numbers of modes may differ.

    Returns
    -------
    (modes, N, N) of the dtype of ``probe``, shifted to sub-pixel precision.
    """
    products = np.conj(np.fft.fft2(guess))[:, None] * np.fft.fft2(probe)[None]  # (m, k, N, N)
    size = probe.shape[-1]
    overlap = (np.abs(np.fft.ifft2(products.conj())) ** 2).sum(axis=(0, 1))
    k = np.fft.fftfreq(size)
    peak = np.array(np.unravel_index(overlap.argmax(), overlap.shape), float)
    peak = (peak + size / 2) % size - size / 2

    def cost(shift: FloatArray) -> float:
        ramp = np.exp(-2j * np.pi * shift[0] * k)[:, None] * np.exp(-2j * np.pi * shift[1] * k)[None, :]
        return -float((np.abs((products * ramp).sum(axis=(-2, -1))) ** 2).sum())

    scale = -cost(peak) or 1.0
    optimum = minimize(lambda s: cost(s) / scale, peak, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-10})
    whole = np.round(optimum.x)
    moved = np.roll(probe, whole.astype(int), axis=(-2, -1))
    result: ComplexArray = shift_probe(moved, (optimum.x - whole)[None])[0]
    return result
