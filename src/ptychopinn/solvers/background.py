"""Counts that every pattern has beside its light, fitted after a pass."""

from __future__ import annotations

import math

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.config.infer import Background, Likelihood
from ptychopinn.data.patterns import Patterns

_WIDTH = 1 / 20  # standard deviation of the Gaussian of a smooth background, in units of N
_DARK_COUNTS = 0.5  # added to the modelled counts in the weights
_TINY = float(np.finfo(np.float32).tiny)


def background_sums(
    difference: Array, measured: Array, good: Array | None, modelled: Array, patterns: Patterns
) -> Array:
    """(2, N, N): sums of the weights ``1 / I``, and of ``n - I`` times these; without bad and saturated pixels.

    ``n - I`` is the difference of the amplitudes times their sum.

    Parameters
    ----------
    difference, measured, modelled:
        (b, N, N) float32: measured amplitude minus modelled, and these two.
    good:
        Where amplitudes were measured, of `Patterns.measured`.
    """
    xp = patterns.library.xp
    weight = patterns.unsaturated(1 / (modelled**2 + _DARK_COUNTS), measured)
    if good is not None:
        weight *= good
    return xp.stack([xp.sum(weight, axis=0), xp.sum(weight * difference * (measured + modelled), axis=0)])


def fit_background(
    background: Array, sums: Array, kind: Background, likelihood: Likelihood, library: ArrayLibrary
) -> Array:
    """The mean excess of the counts over the light of the object, minus what noise adds; (N, N) float32.

    A mean of ``n - I`` with the weights ``1 / I`` of Poisson counts: dark patterns tell most. An object gives some of
    its light to a background that is not there, and takes some of one that is, so an error of the excess becomes one
    of the background that is several times as large. What noise alone adds to the excess is taken off: the standard
    error, or the variance of an amplitude if amplitudes are fitted and it is larger. The square of the mean of
    ``sqrt(n)`` is that much below the mean of ``n``, and objects follow it (the formula is that of
    `ptychopinn.metrics.baselines.noise_residual`).

    Parameters
    ----------
    background:
        (N, N) float32, of the model that the sums were made with.
    sums:
        (2, N, N): `background_sums` of all patterns.
    """
    xp = library.xp
    weight = sums[0, ...]
    excess = sums[1, ...] + weight * background
    averaged = 1.0
    if kind is Background.SMOOTH:
        weight, excess = (_blurred(values, library) for values in (weight, excess))
        averaged = 4 * math.pi * (_WIDTH * background.shape[-1]) ** 2
    floor = 1e-6 * xp.max(weight) + _TINY
    weight = xp.where(weight > floor, weight, floor)
    fitted = xp.clip(excess / weight, 0.0, None)
    noise = 1 / xp.sqrt(averaged * weight)
    if likelihood is Likelihood.AMPLITUDE:
        variance = (1 - xp.exp(-4 * fitted)) / 4
        noise = xp.where(noise > variance, noise, variance)
    return xp.clip(fitted - noise, 0.0, None)


def _blurred(values: Array, library: ArrayLibrary) -> Array:
    """Blur (N, N) float32 with the Gaussian of a smooth background."""
    size = values.shape[-1]
    k = np.fft.fftfreq(size)
    gain = np.exp(-2 * (np.pi * _WIDTH * size) ** 2 * (k[:, None] ** 2 + k**2)).astype(np.float32)
    spectrum = library.fft2(library.cast(values, "complex64")[None, ...]) * library.from_host(gain)
    return library.xp.real(library.ifft2(spectrum))[0, ...]
