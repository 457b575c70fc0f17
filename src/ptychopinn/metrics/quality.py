"""What can be said of a reconstruction without a reference: is it flat, and does it explain the patterns."""

from __future__ import annotations

import math

import numpy as np
import scipy.fft

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import DataError
from ptychopinn.forward import cut_windows, power
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

    Parameters
    ----------
    probe, data, indices, max_patterns:
        As in `forward_residual`.
    """

    def __init__(
        self, probe: ComplexArray, data: ScanDataset, *, indices: IntArray | None = None, max_patterns: int = 512
    ) -> None:
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
        corners = self._corners - np.asarray(origin)

        def compare(number: int) -> tuple[float, float]:
            batch = self._batches[number]
            probes, measured = self._light(batch) if self._kept is None else self._kept[number]
            waves = probes * cut_windows(obj, corners[batch], self._data.N)[:, None]
            field = scipy.fft.fft2(waves, norm="ortho", overwrite_x=True)
            model = np.sqrt(power(field))
            model -= measured
            model *= self._good
            missed = np.einsum("byx,byx->", model, model, dtype=np.float64)
            return float(missed), float(np.einsum("byx,byx->", measured, measured, dtype=np.float64))

        missed, total = np.sum([(0.0, 0.0), *spread(compare, range(len(self._batches)))], axis=0).tolist()
        if total <= 0:
            raise DataError(
                f"{len(self._chosen)} patterns with no photon were given to compare with.",
                "Give patterns with counts outside the bad pixels.",
            )
        return math.sqrt(missed / total)
