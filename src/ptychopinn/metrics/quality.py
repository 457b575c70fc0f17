"""Quality without a reference: flatness and forward residual."""

from __future__ import annotations

import math

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary, slices_of
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import DataError
from ptychopinn.forward import COUNT_FLOOR, power
from ptychopinn.geometry import Frame, Windows
from ptychopinn.interpolation import shift_probe
from ptychopinn.metrics.alignment import ScanBox
from ptychopinn.typing import ComplexArray, FloatArray, IntArray

FLATNESS_LIMIT = 0.02  # an object with a smaller deviation has collapsed to a flat picture
_BATCH_VALUES = 2**17  # complex values of exit waves in memory at a time
_ROWS = 64
_KEPT_BYTES = 2**26  # of cached data: shifted probes, measured amplitudes


def flatness(obj: ComplexArray, box: ScanBox) -> float:
    """Deviation of the complex object inside the scan box: ``sqrt(mean |O - mean O|^2)``.

    Parameters
    ----------
    obj:
        (H, W) complex.
    box:
        Not empty.

    Returns
    -------
    float
        Below `FLATNESS_LIMIT` the object is a collapse. NaN if the object is not finite there.

    Raises
    ------
    DataError
        If the box holds no pixel.
    """
    inside = obj[box.slices]
    if inside.size == 0:
        raise DataError(
            "The box of scan positions holds no pixel of the object.",
            "Scan a larger area, or check that positions are in pixels of the object.",
        )
    mean = inside.mean(dtype=np.complex128)
    total = 0.0
    for row in range(0, len(inside), _ROWS):  # the object may be large
        away = inside[row : row + _ROWS] - mean
        total += float((away.real**2 + away.imag**2).sum())
    return math.sqrt(total / inside.size)


def forward_residual(
    obj: ComplexArray,
    origin: tuple[int, int],
    probe: ComplexArray,
    data: ScanDataset,
    *,
    indices: IntArray | None = None,
    max_patterns: int = 512,
) -> float:
    """Relative difference between the measured amplitudes and those that object and probe predict.

    ``R = sqrt(sum (A - A_model)^2 / sum A^2)`` over all pixels that are not bad, with ``A = sqrt(counts)``.

    Parameters
    ----------
    obj:
        (H, W) complex.
    origin:
        (y, x): pixel (0, 0) of ``obj`` in the frame of the scan's positions.
    probe:
        (modes, N, N) complex, scaled to counts.
    data:
        The scan.
    indices:
        (k,) integers, the patterns to use; None for all.
    max_patterns:
        Maximum number of patterns; they are evenly spread.

    Raises
    ------
    DataError
        If there is no pattern or no photon to compare with.
    """
    return ForwardResidual(probe, Patterns(data), indices=indices, max_patterns=max_patterns)(obj, origin)


class ForwardResidual:
    """`forward_residual` of one probe and one scan for several objects; shared data are cached if they are small.

    With the Poisson likelihood the residual is ``sqrt(D / 4 sum n)``, with half the deviance
    ``D / 2 = sum I - n + (n + c) log((n + c) / (I + c))``. For high counts it equals R. For low counts the mean of
    square roots is below the root of the mean, so R is smallest for a model that is too dark; the deviance is smallest
    for the true one.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64 of the patterns' library.
    patterns:
        Patterns of the scan.
    positions:
        (n, 2) float64 (y, x), pixels; None for those of the scan.
    indices, max_patterns:
        As in `forward_residual`.
    likelihood:
        The likelihood of the residual.
    """

    def __init__(
        self,
        probe: Array,
        patterns: Patterns,
        *,
        positions: FloatArray | None = None,
        indices: IntArray | None = None,
        max_patterns: int = 512,
        likelihood: Likelihood = Likelihood.AMPLITUDE,
    ) -> None:
        self._library = library = patterns.library
        self._missed = _poisson_missed if likelihood is Likelihood.POISSON else _amplitudes_missed
        chosen = np.arange(len(patterns)) if indices is None else np.asarray(indices, np.int64)
        if len(chosen) > max_patterns:
            chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, max_patterns).astype(np.int64))]
        self._patterns, self._chosen = patterns, chosen
        self._probe = library.cast(probe, "complex64")
        size = patterns.data.N
        every = patterns.data.positions if positions is None else positions
        self._windows = Windows.at(every[chosen], size, Frame((0, 0)), library)
        values = math.prod(probe.shape)
        step = library.batch_length(values, _BATCH_VALUES)
        self._batches = slices_of(len(chosen), step)
        small = len(chosen) * (values * 8 + size**2 * 4) <= _KEPT_BYTES
        self._kept = library.spread(self._prepare, self._batches) if small else None

    def _prepare(self, batch: slice) -> tuple[Array, Array]:
        """(b, modes, N, N) shifted probes, and (b, N, N) measured amplitudes, DC in the corner, 0 at bad pixels."""
        measured = self._patterns.amplitudes(self._chosen[batch])
        return shift_probe(self._probe, self._windows.fractions[batch, ...], self._library), measured

    def __call__(self, obj: Array, origin: tuple[int, int]) -> float:
        """R of an object; raises as `forward_residual` does."""
        return math.sqrt(self.shares(obj, origin).sum())

    def shares(self, obj: Array, origin: tuple[int, int]) -> FloatArray:
        """Contribution of each pattern to the square of R; raises as `forward_residual` does.

        Parameters
        ----------
        obj:
            (H, W) complex64 of the patterns' library.
        origin:
            (y, x): its pixel (0, 0) in the frame of the positions.

        Returns
        -------
        (k,) float64, on the host.
        """
        library, xp = self._library, self._library.xp
        windows = self._windows.within(Frame(obj.shape, origin))

        def compare(number: int) -> tuple[Array, Array]:
            batch = self._batches[number]
            probes, measured = self._prepare(batch) if self._kept is None else self._kept[number]
            field = library.fft2(probes * windows[batch].cut(obj)[:, None, ...], norm="ortho")
            missed = self._missed(power(field, library), measured, self._patterns.good, library)
            return missed, xp.sum(measured * measured, axis=(1, 2), dtype=xp.float64)

        compared = library.spread(compare, range(len(self._batches)))
        if not compared:
            raise _no_photon(0)
        missed, measured = (library.to_host(xp.concat([found[k] for found in compared])) for k in (0, 1))
        total = float(measured.sum())
        if total <= 0:
            raise _no_photon(len(self._chosen))
        shares: FloatArray = missed / total
        return shares


def _no_photon(count: int) -> DataError:
    return DataError(
        f"{count} patterns without a photon cannot be compared with.",
        "Give patterns with counts outside the bad pixels.",
    )


def _amplitudes_missed(intensity: Array, measured: Array, good: Array | None, library: ArrayLibrary) -> Array:
    """(b,) float64, squared errors of the amplitudes of (b, N, N) float32 intensities."""
    xp = library.xp
    difference = xp.sqrt(intensity)
    difference -= measured
    if good is not None:
        difference *= good
    return xp.sum(difference * difference, axis=(1, 2), dtype=xp.float64)


def _poisson_missed(intensity: Array, measured: Array, good: Array | None, library: ArrayLibrary) -> Array:
    """Quarters of the Poisson deviances of counts with a floor; as `_amplitudes_missed`."""
    xp = library.xp
    counts = measured * measured
    floored = counts + COUNT_FLOOR
    off = (intensity - counts) / floored
    deviance = floored * xp.clip(off - xp.log1p(off), 0.0, None)  # never negative but for rounding
    if good is not None:
        deviance *= good
    return xp.sum(deviance, axis=(1, 2), dtype=xp.float64) / 2
