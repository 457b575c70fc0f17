"""NumPy reference of the physics: probe x patch -> exit wave -> expected counts.

    psi_jm[y, x] = P_m(y - f_y, x - f_x) * O[c_y + y, c_x + x]
    I_j          = sum_m | fftshift(fft2(psi_jm, norm="ortho")) |^2

with ``c + f = r_j - (N - 1) / 2`` (`ptychopinn.interpolation.split_positions`). The unitary transform keeps energy
(Parseval), so ``sum I_j = sum |psi_j|^2``: a probe scaled to counts gives counts. What lies outside the object array is
1 + 0j. Sources: Rodenburg & Faulkner, Appl. Phys. Lett. 85, 4795 (2004); for modes Thibault & Menzel, Nature 494, 68
(2013).
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from ptychopinn.interpolation import ArrayT, shift_probe, split_positions
from ptychopinn.typing import ComplexArray, FloatArray, IntArray

COUNT_FLOOR = 0.1
"""Counts added to measurement and model by Poisson likelihoods: the logarithm stays finite in dark pixels."""


def cut_windows(obj: ComplexArray, corners: IntArray, size: int) -> ComplexArray:
    """Windows of the object at whole pixels; 1 where a window leaves the array.

    Parameters
    ----------
    obj:
        (H, W) complex.
    corners:
        (b, 2) int (y, x) of each window's first pixel; may be outside the array.
    size:
        Width of the windows.

    Returns
    -------
    (b, size, size) of the dtype of ``obj``.
    """
    height, width = obj.shape
    windows = np.ones((len(corners), size, size), obj.dtype)
    for window, (y, x) in zip(windows, corners.tolist(), strict=True):
        y0, y1, x0, x1 = max(y, 0), min(y + size, height), max(x, 0), min(x + size, width)
        if y0 < y1 and x0 < x1:
            window[y0 - y : y1 - y, x0 - x : x1 - x] = obj[y0:y1, x0:x1]
    return windows


def add_windows(canvas: ComplexArray | FloatArray, windows: ComplexArray | FloatArray, corners: IntArray) -> None:
    """Add windows to a canvas in place, cropped where they leave it: the adjoint of `cut_windows`.

    Parameters
    ----------
    canvas:
        (H, W), changed.
    windows:
        (b, size, size).
    corners:
        (b, 2) int (y, x).
    """
    height, width = canvas.shape
    size = windows.shape[-1]
    for window, (y, x) in zip(windows, corners.tolist(), strict=True):
        y0, y1, x0, x1 = max(y, 0), min(y + size, height), max(x, 0), min(x + size, width)
        if y0 < y1 and x0 < x1:
            canvas[y0:y1, x0:x1] += window[y0 - y : y1 - y, x0 - x : x1 - x]


def exit_waves(obj: ComplexArray, probe: ComplexArray, positions: FloatArray) -> ComplexArray:
    """Exit waves behind an object.

    Parameters
    ----------
    obj:
        (H, W) complex.
    probe:
        (modes, N, N) complex.
    positions:
        (b, 2) float64 (y, x) of probe centres, object pixels.

    Returns
    -------
    (b, modes, N, N) complex.
    """
    size = probe.shape[-1]
    corners, fractions = split_positions(positions, size)
    return shift_probe(probe, fractions) * cut_windows(obj, corners, size)[:, None]


def exit_waves_adjoint(
    waves: ComplexArray, probe: ComplexArray, positions: FloatArray, shape: tuple[int, int]
) -> ComplexArray:
    """Adjoint of `exit_waves` in the object: ``<waves, A obj> = <A^H waves, obj>`` where windows stay inside.

    Parameters
    ----------
    waves:
        (b, modes, N, N) complex.
    probe, positions:
        As in `exit_waves`.
    shape:
        (H, W) of the object.

    Returns
    -------
    (H, W) complex.
    """
    size = probe.shape[-1]
    corners, fractions = split_positions(positions, size)
    windows = (shift_probe(probe, fractions).conj() * waves).sum(axis=1)
    canvas = np.zeros(shape, waves.dtype)
    add_windows(canvas, windows, corners)
    return canvas


def far_field(waves: ComplexArray) -> ComplexArray:
    """Unitary Fourier transform of exit waves to the detector, DC at ``[N//2, N//2]``; any leading axes."""
    spectrum: ComplexArray = scipy.fft.fft2(waves, norm="ortho")  # ten times as fast as numpy's, keeps complex64
    return np.fft.fftshift(spectrum, axes=(-2, -1))


def intensity(waves: ComplexArray) -> FloatArray:
    """Expected counts on the detector: (b, modes, N, N) exit waves to (b, N, N)."""
    return power(far_field(waves))


def over_modes(values: ArrayT) -> ArrayT:
    """(b, modes, N, N) to (b, N, N), added; the values themselves where there is one mode."""
    return values[:, 0] if values.shape[1] == 1 else values.sum(axis=1)


def power(waves: ComplexArray) -> FloatArray:
    """(b, modes, N, N) to (b, N, N): the squares of the moduli, added over the modes."""
    squares: FloatArray = waves.real**2
    squares += waves.imag**2
    return over_modes(squares)


def expected_counts(obj: ComplexArray, probe: ComplexArray, positions: FloatArray) -> FloatArray:
    """Expected counts of patterns: `exit_waves` and `intensity` in one.

    Returns
    -------
    (b, N, N) real, counts when the probe is scaled to counts. Memory is that of the b patterns: call it in batches.
    """
    return intensity(exit_waves(obj, probe, positions))


def detector_ramp(offset_px: FloatArray, size: int) -> ComplexArray:
    """Phase ramp that moves a far field by an offset on the detector.

    Parameters
    ----------
    offset_px:
        (2,) (y, x), detector pixels; positive moves the pattern towards higher index.
    size:
        N.

    Returns
    -------
    (N, N) complex128; multiply the probe by it.
    """
    grid = (np.arange(size) - (size - 1) / 2) / size
    ramp: ComplexArray = np.exp(2j * np.pi * (offset_px[0] * grid[:, None] + offset_px[1] * grid[None, :]))
    return ramp
