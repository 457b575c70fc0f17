"""Sub-pixel shifts: patches by quintic B-splines (as matrices, the same in every backend), probes by Fourier.

An interpolation of the object at fractional positions would blur it. Instead, patches are cut at whole pixels, and the
*probe* is shifted by the remaining fraction, which is exact for a band-limited probe. A predicted patch is in the frame
of the shifted probe. It is moved to whole pixels once, when it is placed.

Source of the spline: Unser, "Splines: a perfect fit", IEEE Signal Proc. Mag. 16, 1999.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
from scipy.special import jv

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary, slices_of
from ptychopinn.typing import ComplexArray, FloatArray

_REACH = 3  # a quintic spline is zero beyond 3 px
_CACHED = 1 << 15  # pixels of patches moved at a time; with their matrices they fit the cache of a core
_ORDERS = 13  # number of Chebyshev polynomials; the next one is below 1e-10 at the highest frequency
_TOLERANCE = 1e-6  # error of a shifted probe, relative to the root of its energy: the precision of complex64
_MAX_TERMS = 64


def quintic(x: Array, library: ArrayLibrary = NUMPY) -> Array:
    """The centred quintic B-spline, any shape, dimensionless; zero for ``|x| >= 3``."""
    xp = library.xp
    a = xp.abs(x)
    near = 66 - 60 * a**2 + 30 * a**4 - 10 * a**5
    middle = 51 + 75 * a - 210 * a**2 + 150 * a**3 - 45 * a**4 + 5 * a**5
    far = (3 - a) ** 5
    return xp.where(a < 1, near, xp.where(a < 2, middle, xp.where(a < 3, far, xp.zeros_like(a)))) / 120


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


def shift_weights(fractions: Array, library: ArrayLibrary = NUMPY) -> Array:
    """Weights on `shift_basis` for each fraction: (...,) float64 in [-0.5, 0.5] to (..., 7) float64."""
    taps = library.arange(2 * _REACH + 1, "float64") - _REACH
    return quintic(-fractions[..., None] - taps, library)


class PatchShift:
    """Moves patches from the probe's frame (samples at ``corner + fraction + i``) to whole pixels (``corner + i``).

    Patches are ``size`` wide; ``dtype`` is that of their real and imaginary parts.
    """

    def __init__(self, size: int, library: ArrayLibrary = NUMPY, dtype: str = "float32") -> None:
        self._size, self._library, self._dtype = size, library, dtype
        basis = shift_basis(size)
        self._basis = library.from_host(basis.reshape(len(basis), -1).astype(dtype))

    @property
    def at_a_time(self) -> int:
        """Number of patches to move at a time."""
        return self._library.batch_length(self._size**2, _CACHED)

    def __call__(self, patches: Array, fractions: Array) -> Array:
        """Move (b, n, n) complex patches from (b, 2) float64 fractions (y, x) to whole pixels; best `at_a_time`."""
        library, xp, n = self._library, self._library.xp, self._size
        weights = library.cast(shift_weights(fractions, library), self._dtype)
        matrices = library.matmul(xp.reshape(weights, (-1, weights.shape[-1])), self._basis)
        matrices = xp.reshape(matrices, (-1, 2, n, n))
        # Real and imaginary part separately: a complex product with real matrices takes twice the work.
        values = xp.stack([xp.real(patches), xp.imag(patches)])
        values = library.matmul(matrices[:, 0, ...], values)
        values = library.matmul(values, xp.matrix_transpose(matrices[:, 1, ...]))
        return library.complex(values[0, ...], values[1, ...])


def place_on_pixels(patches: ComplexArray, fractions: FloatArray) -> ComplexArray:
    """`PatchShift` of any number of NumPy patches, complex64 or complex128."""
    shift = PatchShift(patches.shape[-1], dtype=patches.real.dtype.name)
    placed = np.empty_like(patches)
    for block in slices_of(len(patches), shift.at_a_time):
        placed[block] = shift(patches[block], fractions[block])
    return placed


def shift_ramps(fractions: Array, n: int, library: ArrayLibrary = NUMPY) -> Array:
    """Factors on a spectrum of n frequencies (DC first) that shift its signal by fractions of a pixel.

    (..., 2) float64 fractions (y, x), positive towards higher index, to (..., 2, n) complex128: the factor along y, and
    along x. Its conjugate moves back.
    """
    xp = library.xp
    frequency = library.frequencies(n)
    angle = fractions[..., None] * (-2 * np.pi * frequency)
    # The Nyquist row is both the positive and the negative frequency. Without its sine a real signal stays real.
    has_sine = library.cast(frequency != -0.5, "float64")
    return library.complex(xp.cos(angle), xp.sin(angle) * has_sine)


def shift_probe(probe: Array, fractions: Array, library: ArrayLibrary = NUMPY) -> Array:
    """Shift a probe by fractions of a pixel, by the Fourier shift theorem.

    (modes, N, N) complex, or (b, modes, N, N) for a probe of each pattern, and (b, 2) float64 fractions (y, x),
    positive towards higher index, to (b, modes, N, N) of the dtype of the probe: values ``probe(y - f_y, x - f_x)``.
    """
    spectrum = library.fft2(library.xp.asarray(probe, copy=True))  # a copy: the probe must not change
    return shift_spectrum(spectrum, fractions, library)


def shift_spectrum(spectrum: Array, fractions: Array, library: ArrayLibrary = NUMPY) -> Array:
    """`shift_probe` of a probe whose spectrum, DC first, is given in its shape."""
    ramp = library.xp.astype(shift_ramps(fractions, spectrum.shape[-1], library), spectrum.dtype)
    along_y, along_x = ramp[:, 0, ...][:, None, :, None], ramp[:, 1, ...][:, None, None, :]
    every = spectrum[None, ...] if spectrum.ndim == 3 else spectrum
    return library.ifft2(every * along_y * along_x)


@lru_cache(maxsize=16)
def _chebyshev_ramps(n: int) -> ComplexArray:
    """(n, orders) complex128, read-only: ``shift_ramps(f, n) = sum_a ramps[:, a] T_a(2 f)`` for ``|f| <= 1/2``.

    The Jacobi-Anger expansion, ``exp(-i z t) = sum_a (2 - delta_a0) (-i)^a J_a(z) T_a(t)``.
    """
    order = np.arange(_ORDERS)
    ramps: ComplexArray = jv(order, np.pi * np.fft.fftfreq(n)[:, None]) * (-1j) ** order
    ramps[:, 1:] *= 2
    if n % 2 == 0:
        ramps[n // 2].imag = 0
    ramps.flags.writeable = False
    return ramps


class ShiftedProbe:
    """`shift_probe` of one probe, (modes, N, N) complex64, for many shifts, ten times as fast.

    Every shift by a fraction of a pixel is a weighted sum of a few fixed arrays. The weights are products of Chebyshev
    polynomials of the fractions. There are about ten to forty arrays, depending on the probe's spectrum; a probe that
    needs too many is shifted by `shift_probe`.
    """

    def __init__(self, probe: Array, library: ArrayLibrary = NUMPY) -> None:
        self._probe, self._library = probe, library
        self._terms: Array | None = None
        known = library.to_host(probe)  # the arrays are chosen once, on the host
        spectrum, ramps = scipy.fft.fft2(known), _chebyshev_ramps(known.shape[-1])
        power = (np.abs(spectrum) ** 2).sum(axis=0, dtype=np.float64)
        gain = np.abs(ramps) ** 2
        size = np.sqrt(gain.T @ power @ gain).ravel()  # root of the energy of each product
        order = np.argsort(-size)
        dropped = np.cumsum(size[order][::-1])[::-1]  # upper bounds of the error
        used = order[: max(int((dropped > _TOLERANCE * np.sqrt(power.sum())).sum()), 1)]
        if len(used) > _MAX_TERMS:
            return
        orders = np.stack(np.unravel_index(used, (_ORDERS, _ORDERS)))
        terms = np.empty((len(used), *known.shape), np.complex64)
        for term, y, x in zip(terms, *orders, strict=True):
            term[:] = scipy.fft.ifft2(spectrum * (ramps[:, y, None] * ramps[:, x]).astype(np.complex64))
        self._orders = library.from_host(orders.astype(np.float64))
        self._terms = library.from_host(terms.view(np.float32).reshape(len(used), -1))

    def __call__(self, fractions: Array) -> Array:
        """(b, 2) float64 fractions (y, x) of at most half a pixel, to (b, modes, N, N) complex64."""
        library, xp = self._library, self._library.xp
        if self._terms is None:
            return shift_probe(self._probe, fractions, library)
        angles = xp.acos(xp.clip(2 * fractions, -1.0, 1.0))
        weights = xp.cos(angles[:, 0][:, None] * self._orders[0, ...]) * xp.cos(
            angles[:, 1][:, None] * self._orders[1, ...]
        )
        moved = library.matmul(library.cast(weights, "float32"), self._terms)
        return library.as_complex(xp.reshape(moved, (-1, *self._probe.shape, 2)))
