"""Recognise near-field scans by their patterns: they are shadows of the sample, wider than far field could see."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ptychopinn.data.raw_scan import RawScan
from ptychopinn.errors import DataError
from ptychopinn.typing import FloatArray

_MAX_PAIRS = 60
_MIN_PAIRS = 12
_MAX_PIXELS = 1 << 23  # of the patterns that are compared: 64 MiB
_LIGHT = 0.1  # of the bright level: where the patterns are compared
_AGREEMENT_PX = 1.0  # median distance of measured from predicted shifts
_MIN_SHIFT_PX = 2.0  # median: less is not a shadow that moves


def refuse_near_field(raw: RawScan) -> None:
    """Refuse a scan of shadow images whose illuminated area is wider than the window of a far-field pattern.

    In a diverging beam each pattern is a shadow of the sample, magnified M times, and neighbouring patterns show it
    shifted by M times the step. Where the measured shifts of neighbours agree on one M, the light on the sample is as
    wide as the light on the detector over M. Far-field reconstruction works on a window of ``wavelength * distance /
    detector pixel``; light that is wider is not sampled (Stockmar et al., Scientific Reports 3, 1927, 2013). A
    defocused far-field scan also shows shadows, but its light is narrower than the window.

    Raises
    ------
    DataError
        If it is such a scan.
    """
    geometry, found = raw.geometry, raw.geometry.pixel_m(raw.size)
    pixel = geometry.detector_pixel_m
    if raw.unit != "m" or raw.positions is None or found is None or pixel is None or geometry.distance_m is None:
        return
    counts, bright = _bright(raw)
    if bright.sum() < 64:
        return
    shifts, steps = _shifts(counts, bright, raw.positions)
    if len(shifts) < _MIN_PAIRS:
        return
    matrix, *_ = np.linalg.lstsq(steps, shifts, rcond=None)
    apart = np.linalg.norm(shifts - steps @ matrix, axis=1)
    magnification = float(np.sqrt(abs(np.linalg.det(matrix)))) * pixel[1]
    if np.median(apart) > _AGREEMENT_PX or np.median(np.linalg.norm(shifts, axis=1)) < _MIN_SHIFT_PX:
        return
    extent = max(int(np.ptp(np.flatnonzero(bright.any(axis=axis)))) + 1 for axis in (0, 1))
    width, window = extent * pixel[1] / magnification, raw.size[1] * found[0][1]
    if width > window:
        raise DataError(
            f"This is a near-field scan: neighbouring patterns show one shadow of the sample, magnified "
            f"{magnification:.3g} times, so the light on the sample is {width:.3g} m wide. A far-field "
            f"reconstruction sees a window of {window:.3g} m (wavelength x distance / detector pixel). Near field is "
            "not reconstructed.",
            "Use a program with a near-field (Fresnel) model, such as cdtools or ptypy.",
        )


def _bright(raw: RawScan) -> tuple[FloatArray, FloatArray]:
    """Some patterns over their mean, minus 1, where there is light; and where that is."""
    n = min(len(raw.patterns), 4 * _MAX_PAIRS, max(_MAX_PIXELS // (raw.size[0] * raw.size[1]), 2 * _MIN_PAIRS))
    counts = np.array(raw.patterns[:n], np.float64)
    if raw.bad_values is not None:
        raw.bad_values.put(counts, slice(0, n), 0)
    usable = np.isfinite(counts).all(axis=0)
    if raw.bad_pixels is not None:
        usable &= ~raw.bad_pixels
    counts = np.where(usable & (counts > 0), counts, 0.0)
    mean = counts.mean(axis=0)
    bright = mean > _LIGHT * np.percentile(mean, 99)
    if not bright.any():
        return counts, bright
    relative = np.where(bright, counts / np.where(bright, mean, 1.0) - 1, 0.0)
    relative -= np.where(bright, relative.sum(axis=(1, 2), keepdims=True) / bright.sum(), 0.0)
    return relative, bright


def _shifts(counts: FloatArray, bright: FloatArray, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Shifts (k, 2) px by which a pattern best matches that of a neighbour, and the steps (k, 2) m between them."""
    positions = positions[: len(counts)]
    valid = np.flatnonzero(np.isfinite(positions).all(axis=1))
    if len(valid) < _MIN_PAIRS:
        return np.zeros((0, 2)), np.zeros((0, 2))
    _, near = cKDTree(positions[valid]).query(positions[valid], k=2)
    pairs = np.stack([valid, valid[near[:, 1]]], axis=1)[:: max(1, len(valid) // _MAX_PAIRS)]
    shape = np.array(bright.shape)
    shifts = []
    for first, second in pairs:
        one, other = (np.fft.fft2(counts[k]) for k in (first, second))
        match = np.fft.ifft2(np.conj(one) * other).real
        at = np.array(np.unravel_index(int(match.argmax()), match.shape))
        shifts.append((at + shape // 2) % shape - shape // 2)
    return np.array(shifts, np.float64), positions[pairs[:, 1]] - positions[pairs[:, 0]]
