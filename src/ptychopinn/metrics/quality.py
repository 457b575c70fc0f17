"""What can be said of a reconstruction without a reference: is it flat, and does it explain the patterns."""

from __future__ import annotations

import math

import numpy as np
import scipy.fft

from ptychopinn.config.infer import Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import DataError
from ptychopinn.forward import COUNT_FLOOR, cut_windows, power
from ptychopinn.interpolation import shift_probe, split_positions
from ptychopinn.metrics.alignment import ScanBox
from ptychopinn.parallel import spread
from ptychopinn.typing import ComplexArray, FloatArray, IntArray

FLATNESS_LIMIT = 0.02  # an object that deviates less has collapsed to a flat picture
_BATCH_VALUES = 2**17  # complex values of exit waves held at a time
_ROWS = 64
_KEPT_BYTES = 2**26  # of what does not change with the object: shifted probes, measured amplitudes


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
    """How far the measured amplitudes are from those the object and the probe predict.

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
        (k,) integers, the patterns to look at; None for all.
    max_patterns:
        When there are more, this many are taken, evenly spread.

    Raises
    ------
    DataError
        If there is no pattern or no photon to compare with.
    """
    return ForwardResidual(probe, data, indices=indices, max_patterns=max_patterns)(obj, origin)


class ForwardResidual:
    """`forward_residual` of one probe and one scan, for several objects: what they share is made once, if it is small.

    By the likelihood of Poisson counts it is ``sqrt(D / 4 sum n)`` with half of their deviance,
    ``D / 2 = sum I - n + (n + c) log((n + c) / (I + c))``: the same as R where counts are many. Where they are few, the
    mean of their square roots lies below the root of their mean, and R is least for a model that is too dark; this is
    least for the true one.

    Parameters
    ----------
    probe, data, indices, max_patterns:
        As in `forward_residual`.
    likelihood:
        Whose residual it is.
    """

    def __init__(
        self,
        probe: ComplexArray,
        data: ScanDataset,
        *,
        indices: IntArray | None = None,
        max_patterns: int = 512,
        likelihood: Likelihood = Likelihood.AMPLITUDE,
    ) -> None:
        self._missed = _poisson_missed if likelihood is Likelihood.POISSON else _amplitudes_missed
        chosen = np.arange(len(data)) if indices is None else np.asarray(indices, np.int64)
        if len(chosen) > max_patterns:
            chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, max_patterns).astype(np.int64))]
        self._data, self._chosen = data, chosen
        self._probe = probe
        self._good = np.fft.ifftshift(~data.bad_pixels).astype(np.float32)
        self._corners, self._fractions = split_positions(data.positions[chosen], data.N)
        step = max(1, _BATCH_VALUES // probe.size)
        self._batches = [slice(low, low + step) for low in range(0, len(chosen), step)]
        size = len(chosen) * (probe.size * 8 + data.N**2 * 4)
        self._kept = spread(self._light, self._batches) if size <= _KEPT_BYTES else None

    def _light(self, batch: slice) -> tuple[ComplexArray, FloatArray]:
        """(b, modes, N, N) shifted probes, and (b, N, N) measured amplitudes with DC in the corner, 0 at bad pixels."""
        measured = np.sqrt(self._data.counts(self._chosen[batch]))
        return shift_probe(self._probe, self._fractions[batch]), np.fft.ifftshift(measured, axes=(1, 2))

    def __call__(self, obj: ComplexArray, origin: tuple[int, int]) -> float:
        """R of an object; raises as `forward_residual` does."""
        return math.sqrt(self.shares(obj, origin).sum())

    def shares(self, obj: ComplexArray, origin: tuple[int, int]) -> FloatArray:
        """(k,) float64: what each pattern contributes to the square of R; raises as `forward_residual` does."""
        corners = self._corners - np.asarray(origin)

        def compare(number: int) -> tuple[FloatArray, float]:
            batch = self._batches[number]
            probes, measured = self._light(batch) if self._kept is None else self._kept[number]
            waves = probes * cut_windows(obj, corners[batch], self._data.N)[:, None]
            field = scipy.fft.fft2(waves, norm="ortho", overwrite_x=True)
            missed = self._missed(power(field), measured, self._good)
            return missed, float(np.einsum("byx,byx->", measured, measured, dtype=np.float64))

        compared = spread(compare, range(len(self._batches)))
        total = sum(measured for _, measured in compared)
        if total <= 0:
            raise DataError(
                f"{len(self._chosen)} patterns with no photon were given to compare with.",
                "Give patterns with counts outside the bad pixels.",
            )
        return np.concatenate([missed for missed, _ in compared]) / total


def _amplitudes_missed(intensity: FloatArray, measured: FloatArray, good: FloatArray) -> FloatArray:
    """(b,) float64, squared errors of the amplitudes; (b, N, N) float32 each, the first is used up."""
    difference = np.sqrt(intensity, out=intensity)
    difference -= measured
    difference *= good
    missed: FloatArray = np.einsum("byx,byx->b", difference, difference, dtype=np.float64)
    return missed


def _poisson_missed(intensity: FloatArray, measured: FloatArray, good: FloatArray) -> FloatArray:
    """Quarters of the Poisson deviances of counts with a floor; as `_amplitudes_missed`."""
    counts = measured**2
    floored = counts + np.float32(COUNT_FLOOR)
    off = (intensity - counts) / floored
    deviance = floored * np.maximum(off - np.log1p(off), 0)  # never negative but for rounding
    missed: FloatArray = (deviance * good).sum(axis=(1, 2), dtype=np.float64) / 2
    return missed
