"""Exposures during which the stage moves: an incoherent sum over places of the probe along a line.

    I_j = integral of |FFT(P(r - r_j - t m) O)|^2 over t from -1/2 to 1/2

by Gauss-Legendre quadrature. A place of the probe is a mode: the probe, shifted, times the root of its weight. So the
model of a fly scan is that of a probe with more modes. Source: Pelz et al., Appl. Phys. Lett. 105, 251101 (2014).
"""

from __future__ import annotations

import math

import numpy as np

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.interpolation import shift_ramps
from ptychopinn.typing import FloatArray

_PX_PER_PLACE = 3.0  # a place more for so many pixels


def exposure_places(motion_px: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Places of the probe during an exposure, and their weights.

    Parameters
    ----------
    motion_px:
        Distance (y, x) that the stage moves, pixels.

    Returns
    -------
    (k, 2) float64 (y, x) from the middle of the exposure, and (k,) float64 of sum 1.
    """
    count = 1 + math.ceil(math.hypot(*motion_px) / _PX_PER_PLACE)
    along, weights = np.polynomial.legendre.leggauss(count)
    return np.outer(along / 2, motion_px), weights / 2


class Exposure:
    """Modes of a probe at the places of a moving exposure.

    Parameters
    ----------
    motion_px:
        Distance (y, x) that the stage moves in an exposure, pixels; None for none.
    """

    def __init__(self, motion_px: tuple[float, float] | None, size: int, library: ArrayLibrary = NUMPY) -> None:
        self._library = library
        self._ramps: Array | None = None
        if motion_px is not None and any(motion_px):
            places, weights = exposure_places(motion_px)
            ramps = shift_ramps(places, size)
            both = ramps[:, 0, :, None] * ramps[:, 1, None, :] * np.sqrt(weights)[:, None, None]
            self._ramps = library.from_host(both.astype(np.complex64))

    @property
    def places(self) -> int:
        """Number of places; 1 if nothing moves."""
        return 1 if self._ramps is None else self._ramps.shape[0]

    def spread(self, modes: Array) -> Array:
        """(modes, N, N) complex64 to (places * modes, N, N), of the same energy."""
        if self._ramps is None:
            return modes
        library, xp = self._library, self._library.xp
        spectrum = library.fft2(xp.asarray(modes, copy=True))
        moved = library.ifft2(self._ramps[:, None, ...] * spectrum[None, ...])
        return xp.reshape(moved, (-1, *modes.shape[1:]))

    def gather(self, spectrum: Array) -> Array:
        """Adjoint of `spread`, of spectra: (places * modes, N, N) to (modes, N, N)."""
        if self._ramps is None:
            return spectrum
        xp = self._library.xp
        each = xp.reshape(spectrum, (self.places, -1, *spectrum.shape[1:]))
        return xp.sum(xp.conj(self._ramps)[:, None, ...] * each, axis=0)

    def gather_first(self, spectra: Array) -> Array:
        """Adjoint of `spread` for the first mode, of spectra of patterns: (b, places * modes, N, N) to (b, N, N)."""
        if self._ramps is None:
            return spectra[:, 0, ...]
        xp, shape = self._library.xp, spectra.shape
        first = xp.reshape(spectra, (shape[0], self.places, -1, *shape[2:]))[:, :, 0, ...]
        return xp.sum(xp.conj(self._ramps)[None, ...] * first, axis=1)
