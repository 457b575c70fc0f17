"""Sub-pixel shifts: patches by quintic B-splines (as matrices, the same in every backend), probes by Fourier.

A pattern at a fractional position sees the object between its pixels. Interpolating the object each time it is
cut blurs it; so the object stays on its pixels, patches are cut at whole pixels, and the *probe* is moved by the
remaining fraction of a pixel, which is exact for a band-limited probe. A predicted patch lives in the probe's frame
and is moved once, when it is placed. Spline: Unser, "Splines: a perfect fit", IEEE Signal Proc. Mag. 16, 1999.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import numpy as np
import scipy.fft

from ptychopinn.typing import ComplexArray, FloatArray, IntArray

ArrayT = TypeVar("ArrayT", ComplexArray, FloatArray)

_REACH = 3  # a quintic spline is zero beyond 3 px


def split_positions(positions: FloatArray, size: int) -> tuple[IntArray, FloatArray]:
    """Whole-pixel corner and remaining fraction of windows centred on positions.

    Parameters
    ----------
    positions:
        (b, 2) float64 (y, x) in object pixels, integers are pixel centres.
    size:
        Width of the window.

    Returns
    -------
    corners: (b, 2) int64, and fractions: (b, 2) float64 in [-0.5, 0.5): ``corner + fraction = r - (size - 1) / 2``.
    """
    start = np.asarray(positions, np.float64) - (size - 1) / 2
    corners = np.floor(start + 0.5)
    return corners.astype(np.int64), start - corners


def quintic(x: FloatArray) -> FloatArray:
    """The centred quintic B-spline, any shape, dimensionless; zero for ``|x| >= 3``."""
    a = np.abs(x)
    near = 66 - 60 * a**2 + 30 * a**4 - 10 * a**5
    middle = 51 + 75 * a - 210 * a**2 + 150 * a**3 - 45 * a**4 + 5 * a**5
    far = (3 - a) ** 5
    return np.where(a < 1, near, np.where(a < 2, middle, np.where(a < 3, far, 0.0))) / 120


@lru_cache(maxsize=16)
def shift_basis(n: int) -> FloatArray:
    """Basis of the matrices that move a line of n samples by a fraction of a pixel.

    Returns
    -------
    (7, n, n) float64, read-only. ``sum_k shift_weights(f)[k] * basis[k]`` is the (n, n) matrix that turns samples at
    ``i + f`` into values at ``i``, mirrored at the ends.
    """
    taps = np.arange(-_REACH, _REACH + 1)
    index = np.arange(n)

    def mirrored(offset: int) -> FloatArray:
        period = max(2 * (n - 1), 1)
        j = np.mod(index + offset, period)
        j = np.where(j < n, j, period - j)
        matrix = np.zeros((n, n))
        np.add.at(matrix, (index, j), 1.0)
        return matrix

    collocation = sum(quintic(np.array(float(k))) * mirrored(int(k)) for k in taps)
    coefficients = np.linalg.inv(collocation)
    basis = np.stack([mirrored(int(k)) @ coefficients for k in taps])
    basis.flags.writeable = False
    return basis


def shift_weights(fractions: FloatArray) -> FloatArray:
    """Weights on `shift_basis` for each fraction.

    Parameters
    ----------
    fractions:
        (...,) in [-0.5, 0.5].

    Returns
    -------
    (..., 7) float64.
    """
    taps = np.arange(-_REACH, _REACH + 1)
    return quintic(-np.asarray(fractions, np.float64)[..., None] - taps)


def place_on_pixels(patches: ArrayT, fractions: FloatArray) -> ArrayT:
    """Move patches from the probe's frame (samples at ``corner + fraction + i``) to whole pixels (``corner + i``).

    Parameters
    ----------
    patches:
        (b, n, n) complex or real.
    fractions:
        (b, 2) (y, x), in pixels.

    Returns
    -------
    (b, n, n) of the dtype of ``patches``.
    """
    n = patches.shape[-1]
    basis = shift_basis(n).reshape(2 * _REACH + 1, n * n)
    real = np.float32 if patches.dtype in (np.complex64, np.float32) else np.float64
    # Not a matrix product: its threads would spin beside those of a backend that predicts, and halve its speed.
    matrices = np.einsum("bak,kp->bap", shift_weights(fractions).astype(real), basis.astype(real)).reshape(-1, 2, n, n)
    placed: ArrayT = matrices[:, 0] @ patches @ matrices[:, 1].transpose(0, 2, 1)
    return placed


def shift_ramps(fractions: FloatArray, n: int) -> ComplexArray:
    """What a spectrum of n frequencies (DC first) is multiplied by to move its signal by fractions of a pixel.

    Parameters
    ----------
    fractions:
        (..., 2) (y, x), in pixels; positive moves towards higher index.
    n:
        Samples along a side.

    Returns
    -------
    (..., 2, n) complex128: the factor along y, and along x. Its conjugate moves back.
    """
    f = np.asarray(fractions, np.float64)
    ramp: ComplexArray = np.exp(-2j * np.pi * f[..., None] * np.fft.fftfreq(n))
    if n % 2 == 0:  # the Nyquist row belongs to both signs of frequency: keep a real signal real
        ramp[..., n // 2] = np.cos(np.pi * f)
    return ramp


def shift_probe(probe: ComplexArray, fractions: FloatArray) -> ComplexArray:
    """The probe moved by fractions of a pixel, by the Fourier shift theorem.

    Parameters
    ----------
    probe:
        (modes, N, N) complex.
    fractions:
        (b, 2) (y, x), in pixels; positive moves towards higher index.

    Returns
    -------
    (b, modes, N, N) of the dtype of ``probe``: values ``probe(y - f_y, x - f_x)``.
    """
    ramp = shift_ramps(fractions, probe.shape[-1]).astype(probe.dtype)  # (b, 2, N)
    spectrum = scipy.fft.fft2(probe)[None] * ramp[:, None, 0, :, None] * ramp[:, None, 1, None, :]
    shifted: ComplexArray = scipy.fft.ifft2(spectrum, overwrite_x=True)
    return shifted
