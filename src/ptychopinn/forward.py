"""NumPy reference of the physics.

Probe x patch -> exit wave -> expected counts::

    psi_jm[y, x] = P_m(y - f_y, x - f_x) * O[c_y + y, c_x + x]
    I_j          = sum_m | fftshift(fft2(psi_jm, norm="ortho")) |^2

with ``c + f = r_j - (N - 1) / 2`` (`ptychopinn.geometry.Windows`). The unitary transform keeps energy
(Parseval), so ``sum I_j = sum |psi_j|^2``: a probe scaled to counts gives counts. Outside of the object array the
object is 1 + 0j. Sources: Rodenburg & Faulkner, Appl. Phys. Lett. 85, 4795 (2004); for modes Thibault & Menzel, Nature
494, 68 (2013).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy.fft

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.geometry import Frame, Windows
from ptychopinn.interpolation import shift_probe
from ptychopinn.typing import ComplexArray, FloatArray

COUNT_FLOOR = 0.1
"""Counts added to measurement and model in Poisson likelihoods, so that logarithms are finite in dark pixels."""


def exit_waves(obj: ComplexArray, probe: ComplexArray, positions: FloatArray) -> ComplexArray:
    """Exit waves behind an object, (b, modes, N, N) complex.

    The object is (H, W), the probe (modes, N, N) complex, or (b, modes, N, N) where each pattern has its own; positions
    are (b, 2) float64 (y, x) of probe centres, object pixels.
    """
    windows = Windows.at(positions, probe.shape[-1], Frame(obj.shape))
    waves: ComplexArray = shift_probe(probe, windows.fractions) * windows.cut(obj)[:, None]
    return waves


def exit_waves_adjoint(
    waves: ComplexArray, probe: ComplexArray, positions: FloatArray, shape: tuple[int, int]
) -> ComplexArray:
    """Adjoint of `exit_waves` in the object: ``<waves, A obj> = <A^H waves, obj>`` where windows stay inside.

    (b, modes, N, N) waves to an object of the shape (H, W).
    """
    windows = Windows.at(positions, probe.shape[-1], Frame(shape))
    values = (shift_probe(probe, windows.fractions).conj() * waves).sum(axis=1)
    canvas: ComplexArray = windows.add(np.zeros(shape, waves.dtype), values)
    return canvas


def far_field(waves: ComplexArray) -> ComplexArray:
    """Unitary Fourier transform of exit waves to the detector, DC at ``[N//2, N//2]``; any leading axes."""
    spectrum: ComplexArray = scipy.fft.fft2(waves, norm="ortho")  # ten times as fast as numpy's, keeps complex64
    return np.fft.fftshift(spectrum, axes=(-2, -1))


def intensity(waves: ComplexArray) -> FloatArray:
    """Expected counts on the detector: (b, modes, N, N) exit waves to (b, N, N)."""
    counts: FloatArray = power(far_field(waves))
    return counts


def sum_modes(values: Array, library: ArrayLibrary = NUMPY) -> Array:
    """Sum over modes, (b, modes, N, N) to (b, N, N), without a copy for one mode."""
    return values[:, 0, ...] if values.shape[1] == 1 else library.xp.sum(values, axis=1)


def power(waves: Array, library: ArrayLibrary = NUMPY) -> Array:
    """Squared moduli summed over modes, (b, modes, N, N) complex to (b, N, N) real."""
    squares = library.xp.real(waves) ** 2
    squares += library.xp.imag(waves) ** 2
    return sum_modes(squares, library)


def window_counts(windows: Array, modes: Iterable[Array], library: ArrayLibrary = NUMPY) -> Array:
    """Expected counts of windows of the object on whole pixels, mode by mode to save memory.

    (b, N, N) complex64 windows, and modes in counts, (N, N) or (b, N, N) complex64 each, to (b, N, N) float32, DC at
    [0, 0].
    """
    counts = None
    for mode in modes:
        field = library.fft2(mode * windows, norm="ortho")
        seen = power(field[:, None, ...], library)
        counts = seen if counts is None else counts + seen
    return counts


def expected_counts(obj: ComplexArray, probe: ComplexArray, positions: FloatArray) -> FloatArray:
    """Expected counts of patterns: `exit_waves` and `intensity` in one.

    Returns
    -------
    (b, N, N) real, in counts if the probe is scaled to counts. Call it in batches to save memory.
    """
    return intensity(exit_waves(obj, probe, positions))


def detector_ramp(offset_px: FloatArray, size: int) -> ComplexArray:
    """Phase ramp that shifts a far field by an offset on the detector: (N, N) complex128, to multiply a probe by.

    The offset is (2,) (y, x), detector pixels; positive moves the pattern towards higher index.
    """
    grid = (np.arange(size) - (size - 1) / 2) / size
    ramp: ComplexArray = np.exp(2j * np.pi * (offset_px[0] * grid[:, None] + offset_px[1] * grid[None, :]))
    return ramp
