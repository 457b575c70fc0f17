"""What can be said of a reconstruction without a reference: is it flat, and does it explain the patterns."""

from __future__ import annotations

import math

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import DataError
from ptychopinn.forward import expected_counts
from ptychopinn.metrics.alignment import ScanBox
from ptychopinn.typing import ComplexArray, IntArray

FLATNESS_LIMIT = 0.02  # an object that deviates less has collapsed to a flat picture
_BATCH_VALUES = 2**22  # complex values of exit waves held at a time


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
    inside = np.asarray(obj[box.slices], np.complex128)
    if inside.size == 0:
        raise DataError(
            "The box of scan positions holds no pixel of the object.",
            "Scan a larger area, or check that positions are in pixels of the object.",
        )
    return float(np.sqrt(np.mean(np.abs(inside - inside.mean()) ** 2)))


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
    chosen = np.arange(len(data)) if indices is None else np.asarray(indices, np.int64)
    if len(chosen) > max_patterns:
        chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, max_patterns).astype(np.int64))]
    good = ~data.bad_pixels
    local = data.positions - np.asarray(origin, np.float64)
    step = max(1, _BATCH_VALUES // probe.size)
    missed = total = 0.0
    for start in range(0, len(chosen), step):
        batch = chosen[start : start + step]
        measured = np.sqrt(data.counts(batch)[:, good].astype(np.float64))
        model = np.sqrt(expected_counts(obj, probe, local[batch])[:, good].astype(np.float64))
        missed += float(((measured - model) ** 2).sum())
        total += float((measured**2).sum())
    if total <= 0:
        raise DataError(
            f"{len(chosen)} patterns with no photon were given to compare with.",
            "Give patterns with counts outside the bad pixels.",
        )
    return math.sqrt(missed / total)
