"""Sub-pixel shifts: patches by quintic B-splines (as matrices, the same in every backend), probes by Fourier.

A pattern at a fractional position sees the object between its pixels. Interpolating the object each time it is
cut blurs it; so the object stays on its pixels, patches are cut at whole pixels, and the *probe* is moved by the
remaining fraction of a pixel, which is exact for a band-limited probe. A predicted patch lives in the probe's frame
and is moved once, when it is placed. Spline: Unser, "Splines: a perfect fit", IEEE Signal Proc. Mag. 16, 1999.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TypeVar

import numpy as np
import scipy.fft
from scipy.special import jv

from ptychopinn.typing import ComplexArray, FloatArray, IntArray

ArrayT = TypeVar("ArrayT", ComplexArray, FloatArray)

_REACH = 3  # a quintic spline is zero beyond 3 px
_CACHED = 1 << 15  # pixels of patches moved at a time: they and their matrices fit a core's cache
_ALONE = 1 << 18  # multiplications that OpenBLAS does in one thread (GEMM_MULTITHREAD_THRESHOLD)
_NARROWEST = 64  # columns of the pieces of a product
_ORDERS = 13  # of Chebyshev polynomials: the next one is below 1e-10 at the highest frequency
_TOLERANCE = 1e-6  # of a shifted probe, in terms of its root energy: what complex64 resolves
_MOST_TERMS = 64


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


def shift_matrices(weights: FloatArray, n: int) -> FloatArray:
    """The matrices that move lines of n samples by fractions of a pixel.

    Parameters
    ----------
    weights:
        (..., 7) float32 or float64, from `shift_weights`.
    n:
        Samples of a line.

    Returns
    -------
    (..., n, n) of the dtype of ``weights``.
    """
    taps = weights.shape[-1]
    basis = shift_basis(n).reshape(taps, n * n).astype(weights.dtype)
    return product_alone(weights.reshape(-1, taps), basis).reshape(*weights.shape[:-1], n, n)


def product_alone(a: FloatArray, b: FloatArray) -> FloatArray:
    """``a @ b`` in pieces so small that BLAS wakes no threads of its own.

    They would spin beside those of a backend that predicts, and halve its speed.

    Parameters
    ----------
    a, b:
        (..., m, k) and (..., k, l) real, of one dtype; leading axes broadcast.
    """
    m, k, length = a.shape[-2], a.shape[-1], b.shape[-1]
    if m * k * length <= _ALONE:
        return np.asarray(a @ b)
    product = np.empty((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, length), a.dtype)
    columns = min(max(_ALONE // max(m * k, 1), _NARROWEST), length)
    rows = min(max(_ALONE // max(k * columns, 1), 1), m)
    for low, left in itertools.product(range(0, m, rows), range(0, length, columns)):
        place = (..., slice(low, low + rows), slice(left, left + columns))
        np.matmul(a[..., low : low + rows, :], b[..., left : left + columns], out=product[place])
    return product


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
    single = patches.dtype in (np.complex64, np.float32)
    weights: FloatArray = shift_weights(fractions).astype(np.float32 if single else np.float64)
    placed = np.empty(patches.shape, patches.dtype)
    step = max(_CACHED // n**2, 1)
    for low in range(0, len(patches), step):
        block = patches[low : low + step]
        matrices = shift_matrices(weights[low : low + step], n)
        along_y, along_x = matrices[:, 0], matrices[:, 1].transpose(0, 2, 1)
        # Parts apart: a complex product with real matrices would take twice the work.
        parts = [(block.real, placed.real), (block.imag, placed.imag)]
        for source, target in parts if patches.dtype.kind == "c" else parts[:1]:
            part = np.ascontiguousarray(source)
            target[low : low + step] = product_alone(product_alone(along_y, part), along_x)
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
    """`shift_probe` of one probe, ten times as fast where it is moved often.

    Shifts by fractions of a pixel differ little: all of them are sums of a few arrays, products of Chebyshev
    polynomials in the fractions. As many are kept as the probe's spectrum asks for, some ten to forty.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64. One that would need more arrays than are worth it is moved by `shift_probe` itself.
    """

    def __init__(self, probe: ComplexArray) -> None:
        self._probe = probe
        spectrum, ramps = scipy.fft.fft2(probe), _chebyshev_ramps(probe.shape[-1])
        power = (np.abs(spectrum) ** 2).sum(axis=0, dtype=np.float64)
        gain = np.abs(ramps) ** 2
        size = np.sqrt(gain.T @ power @ gain).ravel()  # of each product, the root of its energy
        order = np.argsort(-size)
        dropped = np.cumsum(size[order][::-1])[::-1]  # no sum of them is larger
        kept = order[: max(int((dropped > _TOLERANCE * np.sqrt(power.sum())).sum()), 1)]
        self._orders = np.stack(np.unravel_index(kept, (_ORDERS, _ORDERS)))
        self._terms: FloatArray | None = None
        if len(kept) <= _MOST_TERMS:
            terms = np.empty((len(kept), *probe.shape), np.complex64)
            for term, y, x in zip(terms, *self._orders, strict=True):
                term[:] = scipy.fft.ifft2(spectrum * (ramps[:, y, None] * ramps[:, x]).astype(np.complex64))
            self._terms = terms.view(np.float32).reshape(len(kept), -1)

    def __call__(self, fractions: FloatArray) -> ComplexArray:
        """(b, 2) (y, x) pixels to (b, modes, N, N) complex64; within 1/2 it is fast."""
        if self._terms is None or np.abs(fractions).max(initial=0.0) > 0.5:
            return shift_probe(self._probe, fractions)
        angles = np.arccos(2 * np.asarray(fractions, np.float64))
        weights = np.cos(angles[:, 0, None] * self._orders[0]) * np.cos(angles[:, 1, None] * self._orders[1])
        moved = product_alone(weights.astype(np.float32), self._terms)
        return moved.view(np.complex64).reshape(len(fractions), *self._probe.shape)
