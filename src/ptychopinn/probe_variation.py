"""A probe that varies over a scan: a mean, and a few modes with a weight for each pattern.

    P_j0 = P_0 + sum_k w_jk V_k

``P_0`` is the first mode of the probe; its other incoherent modes do not vary. The weights are real: what varies is
real (a defocus, a tilt, a shift of light in an aperture), and a phase of a pattern's whole probe changes nothing.

Source: Odstrcil et al., Opt. Express 24, 8360 (2016), "orthogonal probe relaxation" (OPR).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.errors import DataError
from ptychopinn.exposure import Exposure
from ptychopinn.interpolation import shift_spectrum
from ptychopinn.short_repr import ShortRepr
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray

MODES_KEY, WEIGHTS_KEY = "probe_variation", "probe_variation_weights"
"""Names in scan files: modes and weights of a `ProbeVariation`."""
_NO_MEAN = 1e-6  # a mean of the weights below this fraction of them is rounding


@dataclass(frozen=True, eq=False, repr=False)
class ProbeVariation(ShortRepr):
    """How the first mode of a probe varies from pattern to pattern."""

    modes: Array  # (K, N, N) complex64 of a library, in counts for a weight of 1
    weights: FloatArray  # (n, K) float32 on the host

    @property
    def mean_squares(self) -> FloatArray:
        """(K,) float64: mean squares of the weights."""
        squares: FloatArray = (self.weights.astype(np.float64) ** 2).mean(axis=0)
        return squares

    def check(self, count: int, size: int) -> None:
        """Refuse a variation that is not one of ``count`` patterns of ``size`` x ``size`` pixels.

        Raises
        ------
        DataError
            If shapes or dtypes are others, or numbers are not finite.
        """
        modes, weights = self.modes, self.weights
        if (
            modes.ndim != 3
            or modes.shape[1:] != (size, size)
            or weights.shape != (count, len(modes))
            or len(modes) == 0
        ):
            raise DataError(
                f"The variation of the probe has modes of shape {modes.shape} and weights of shape {weights.shape}; "
                f"with {count} patterns of {size} x {size} they must be (modes, {size}, {size}) and ({count}, modes).",
                "Give every pattern its weights, in the same order.",
            )
        if weights.dtype.kind != "f" or not (np.isfinite(weights).all() and np.isfinite(modes).all()):
            raise DataError(
                f"The variation of the probe has weights of {weights.dtype}, and numbers that are not finite.",
                "Give finite numbers, or leave the variation out.",
            )

    def select(self, indices: IntArray) -> ProbeVariation:
        """That of the patterns ``indices``, in this order."""
        return replace(self, weights=self.weights[indices])

    def map_modes(self, change: Callable[[Array], Array]) -> ProbeVariation:
        """With the modes changed by a linear function of (K, H, W)."""
        return replace(self, modes=change(self.modes))


def to_opr(probe: ComplexArray, variation: ProbeVariation | None) -> tuple[ComplexArray, FloatArray | None]:
    """A probe as Ptychodus stores it: OPR modes, and a weight for each mode and position.

    There the first incoherent mode of a position is the sum of the OPR modes times their weights; the other incoherent
    modes are those of the first OPR mode.

    Returns
    -------
    (1 + K, modes, N, N) complex64, and (n, 1 + K) float32 weights, the first of them 1; None without variation.
    """
    if variation is None:
        return probe[None], None
    modes = np.zeros((len(variation.modes), *probe.shape), np.complex64)
    modes[:, 0] = variation.modes
    weights = np.concatenate([np.ones((len(variation.weights), 1), np.float32), variation.weights], axis=1)
    return np.concatenate([probe[None], modes]), weights


def from_opr(array: ComplexArray, weights: AnyArray | None) -> tuple[ComplexArray, ProbeVariation | None]:
    """The (modes, N, N) probe and its variation, of probes of 2 to 4 axes.

    Without weights the first OPR mode is the probe. If weights of the first one are not 1, the probe is the mean over
    the positions, and all modes vary about it.

    Raises
    ------
    DataError
        If the weights are not those of the modes.
    """
    if array.ndim < 4 or weights is None:
        return (array[None] if array.ndim == 2 else array[0] if array.ndim == 4 else array), None
    if weights.shape[1:] != array.shape[:1] or not np.isfinite(weights).all():
        raise DataError(
            f"The probe has {array.shape[0]} OPR modes, their weights the shape {weights.shape}.", "Save both again."
        )
    probe, modes, rest = array[0], array[1:, 0], weights[:, 1:]
    if (weights[:, 0] != 1).any():
        mean = weights.mean(axis=0)
        probe = probe.copy()
        probe[0] = np.tensordot(mean, array[:, 0], axes=1)
        modes, rest = array[:, 0], weights - mean
    if len(modes) == 0:
        return probe, None
    return probe, ProbeVariation(modes.astype(np.complex64), rest.astype(np.float32))


def mean_and_variation(array: ComplexArray, weights: AnyArray | None) -> tuple[ComplexArray, ProbeVariation | None]:
    """As `from_opr`, but the probe is the mean over the positions, the weights have the mean 0, and not all are alike.

    Raises
    ------
    DataError
        As `from_opr`.
    """
    probe, variation = from_opr(array, weights)
    if variation is None:
        return probe, None
    mean = variation.weights.mean(axis=0, dtype=np.float64)
    if (np.abs(mean) <= _NO_MEAN * np.sqrt(variation.mean_squares)).all():
        return probe, variation
    probe = probe.copy()
    probe[0] += np.tensordot(mean, variation.modes, axes=1)
    rest = variation.weights - mean
    if (np.abs(rest) <= _NO_MEAN * np.abs(mean)).all():
        return probe, None
    return probe, replace(variation, weights=rest.astype(np.float32))


class VaryingProbe:
    """The probe of each pattern, at the places of an exposure and shifted by a fraction of a pixel.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64 of the library.
    variation:
        (K, N, N) complex64 of the library: modes of a `ProbeVariation`.
    """

    def __init__(self, probe: Array, variation: Array, exposure: Exposure, library: ArrayLibrary) -> None:
        self._library, self._places, self._modes = library, exposure.places, probe.shape[0]
        xp, size = library.xp, probe.shape[-1]
        fixed, varying = (library.fft2(xp.asarray(exposure.spread(some), copy=True)) for some in (probe, variation))
        self._fixed = fixed
        varying = xp.reshape(varying, (self._places, -1, size * size))
        self._varying = xp.reshape(xp.permute_dims(varying, (1, 0, 2)), (-1, self._places * size * size))

    def __call__(self, fractions: Array, weights: Array) -> Array:
        """(b, 2) float64 fractions (y, x) and (b, K) float32 weights to (b, places * modes, N, N) complex64."""
        library, xp, size = self._library, self._library.xp, self._fixed.shape[-1]
        change = library.matmul(library.cast(weights, "complex64"), self._varying)
        change = xp.reshape(change, (-1, self._places, 1, size, size))
        if self._modes > 1:
            rest = xp.zeros_like(xp.broadcast_to(change, (change.shape[0], self._places, self._modes - 1, size, size)))
            change = xp.concat([change, rest], axis=2)
        change = xp.reshape(change, (-1, *self._fixed.shape))
        change += self._fixed[None, ...]
        return shift_spectrum(change, fractions, library)
