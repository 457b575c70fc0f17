"""Fourier ring correlation: the detail down to which two pictures agree.

Saxton & Baumeister, J. Microsc. 127, 127 (1982); the fixed threshold of 0.5 is the common figure FRC50.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychopinn.errors import DataError, ScoreError
from ptychopinn.short_repr import ShortRepr
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray

NYQUIST = 0.5  # cycles per pixel
ROUNDING = 1e-6  # of single precision, relative
_SURE_RINGS = 3


@dataclass(frozen=True, eq=False, repr=False)
class FrcCurve(ShortRepr):
    """The correlation of each ring."""

    frequency: FloatArray  # (k,) float64, cycles per pixel, rising, from one period in the shorter side to 0.5
    correlation: FloatArray  # (k,) float64 in [-1, 1]; 0 where a picture has no signal


def frc(a: FloatArray | ComplexArray, b: FloatArray | ComplexArray, scale: float = 0.0) -> FrcCurve:
    """Fourier ring correlation of two (h, w) pictures on the same pixels, real or complex, at least 4 x 4.

    Means are removed and a Hann window is applied, because the edges of the pictures would correlate. A ring in which a
    picture has no more than the rounding of single precision has no signal there. ``scale`` is as in `is_constant`.

    Raises
    ------
    DataError
        If the shapes differ or are too small.
    """
    if a.shape != b.shape or a.ndim != 2 or min(a.shape) < 4:
        raise DataError(
            f"Pictures of shapes {a.shape} and {b.shape} were given to the Fourier ring correlation.",
            "Give two pictures of one shape, at least 4 x 4.",
        )
    height, width = a.shape
    window = _hann(height)[:, None] * _hann(width)[None, :]
    fa, fb = (np.fft.fft2((v - v.mean()) * window) for v in (a, b))
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    shorter = min(height, width)
    ring = np.rint(radius * shorter).astype(np.int64).ravel()
    count = shorter // 2 + 1

    def ring_sum(values: FloatArray) -> FloatArray:
        sums = np.bincount(ring, values.ravel(), minlength=count)[1:count]
        return sums.astype(np.float64, copy=False)

    cross = ring_sum((fa * fb.conj()).real)
    of_a, of_b = (ring_sum(np.abs(transform) ** 2) for transform in (fa, fb))
    rounding = ROUNDING**2 * float((window**2).sum()) * ring_sum(np.ones(a.shape))  # of a value of 1
    there = [
        power > rounding * max(float(np.abs(picture).max()), scale) ** 2 for picture, power in ((a, of_a), (b, of_b))
    ]
    correlation = np.divide(cross, np.sqrt(of_a * of_b), out=np.zeros(count - 1), where=there[0] & there[1])
    return FrcCurve(np.arange(1, count) / shorter, np.clip(correlation, -1, 1))


def is_constant(picture: FloatArray | ComplexArray, scale: float = 0.0) -> bool:
    """Whether a picture is constant within the rounding of single precision.

    ``scale`` is the size of the values that it was computed from, if it is above that of the picture: phases near 0 are
    no more precise than others.
    """
    return bool(picture.std() <= ROUNDING * max(float(np.abs(picture).max()), scale))


def frc50(curve: FrcCurve, threshold: float = 0.5) -> float:
    """Frequency down to which two pictures agree, cycles per pixel; higher is better.

    It is where the curve first falls below a threshold. The first rings hold few values and the slow errors of a
    picture. If one of them is below, and the curve then stays above for three rings and for as many as came before,
    the search begins there.

    Returns
    -------
    float
        Linear between rings; 0.5 (Nyquist) if the curve stays above, 0 if it is below at its first ring and above at
        no more than two in a row.

    Raises
    ------
    ScoreError
        If a picture has no signal, or if the curve is above, for three rings or more, only after a longer part that is
        below.
    """
    if not curve.correlation.any():
        raise ScoreError("FRC50 cannot be computed: a picture is constant.")
    above = curve.correlation >= threshold
    start = _search_start(above)
    if start is None:
        if (run := _longest_run(above)) < _SURE_RINGS:
            return 0.0
        raise ScoreError(
            f"FRC50 cannot be computed: the pictures disagree in the first of {len(above)} rings, and agree in no more "
            f"than {run} rings in a row."
        )
    below = start + np.flatnonzero(~above[start:])
    if len(below) == 0:
        return NYQUIST
    i = int(below[0])
    (f0, f1), (c0, c1) = curve.frequency[i - 1 : i + 1], curve.correlation[i - 1 : i + 1]
    return float(f0 + (f1 - f0) * (c0 - threshold) / (c0 - c1))


def _search_start(above: BoolArray) -> int | None:
    """The ring from which on a curve is searched for its fall; None if it is below too long."""
    rises = np.flatnonzero(above & ~np.append(False, above[:-1]))
    # A dip after the first rings is a fall, unless everything before it was below too.
    early = rises[(rises <= _SURE_RINGS) | (rises == above.argmax())]
    for start in early[::-1]:
        run = above[start : start + max(start, _SURE_RINGS)]
        if start == 0 or (len(run) >= _SURE_RINGS and run.all()):
            return int(start)
    return None


def _longest_run(above: BoolArray) -> int:
    """The most rings in a row that are above."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], above.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _hann(n: int) -> FloatArray:
    """Periodic Hann window, which spreads a frequency by one ring at most."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
