"""Scores of amplitude and phase of an aligned pair.

PSNR and SSIM come from scikit-image with the data range given. MS-SSIM: Wang, Simoncelli & Bovik, Asilomar
Conference on Signals, Systems & Computers, 2003.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ptychopinn.errors import DataError
from ptychopinn.metrics.alignment import MIN_SIDE_PX, Aligned
from ptychopinn.metrics.frc import frc, frc50, is_constant
from ptychopinn.typing import FloatArray

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003, finest scale first
_MIN_TERM = 0.01  # of MS-SSIM
_PSNR_LIMIT_DB = 313.0  # for identical pictures: finite, hence valid JSON
_SIGMA_PX, _RADIUS_PX = 1.5, 5  # the 11 x 11 Gaussian window of SSIM


def score(aligned: Aligned, *, amp_range: float | None = None, phase_range: float | None = None) -> dict[str, float]:
    """All scores of an aligned pair.

    Phases are principal values relative to the phase of the reference's mean, in rad.

    Parameters
    ----------
    amp_range, phase_range:
        Data ranges of PSNR, SSIM and MS-SSIM; None: the difference of the 0.5 and 99.5 percentiles of the reference
        (1 if that is 0).

    Returns
    -------
    dict
        ``amp_`` and ``phase_`` before each of ``mae``, ``mse``, ``psnr`` (dB, at most 313), ``ssim``,
        ``ms_ssim``, ``frc50`` (cycles per pixel), ``corr`` (Pearson; 0 where a picture is constant); and
        ``nrmse``, ``|G - R| / |G|`` of the complex pair. All finite.

    Raises
    ------
    DataError
        If a data range is not positive.
    """
    g, r = aligned.reference, aligned.reconstruction
    turn = np.exp(-1j * np.angle(g.mean()))
    figures: dict[str, float] = {}
    for name, a, b, data_range in (
        ("amp", np.abs(g), np.abs(r), amp_range),
        ("phase", np.angle(g * turn), np.angle(r * turn), phase_range),
    ):
        span = _spread(a) if data_range is None else float(data_range)
        if not (math.isfinite(span) and span > 0):
            raise DataError(f"The data range of the {name} is {span}.", "Give a positive data range.")
        figures |= {f"{name}_{key}": value for key, value in _compare(a, b, span).items()}
    figures["nrmse"] = float(np.linalg.norm(g - r) / np.linalg.norm(g))
    return figures


def ms_ssim(a: FloatArray, b: FloatArray, data_range: float) -> float:
    """Multi-scale structural similarity of two pictures.

    Contrast and structure are compared at every scale, luminance at the coarsest, each with its published weight. Each
    scale halves the picture by averaging 2 x 2 pixels. A picture with a shorter side below 176 px is too small for five
    scales: only the finest ones, down to 11 px, are used, and their weights are scaled to the sum 1. A contrast
    term below 0.01 counts as 0.01: a slow error of one scale must not hide all others.

    Parameters
    ----------
    a, b:
        (h, w) real, finite, of one shape, at least 11 x 11.
    data_range:
        Span of the values, in their unit.

    Returns
    -------
    float in [0.01, 1]; 1 for identical pictures.
    """
    if a.shape != b.shape or a.ndim != 2 or min(a.shape) < MIN_SIDE_PX:
        raise DataError(
            f"Pictures of shapes {a.shape} and {b.shape} were given to MS-SSIM.",
            f"Give two pictures of one shape, at least {MIN_SIDE_PX} x {MIN_SIDE_PX}.",
        )
    scales = min(len(_WEIGHTS), 1 + int(math.log2(min(a.shape) / MIN_SIDE_PX)))
    weights = np.array(_WEIGHTS[:scales]) / sum(_WEIGHTS[:scales])
    result = 1.0
    for scale, weight in enumerate(weights):
        luminance, contrast = ssim_terms(a, b, data_range)
        last = scale == scales - 1
        term = float((luminance * contrast).mean() if last else contrast.mean())
        result *= max(term, _MIN_TERM) ** float(weight)
        a, b = _halve(a), _halve(b)
    return result


def ssim_terms(a: FloatArray, b: FloatArray, data_range: float) -> tuple[FloatArray, FloatArray]:
    """Maps of luminance and of contrast times structure, half a window inside; SSIM is their product."""

    def blur(values: FloatArray) -> FloatArray:
        blurred: FloatArray = gaussian_filter(values, _SIGMA_PX, truncate=_RADIUS_PX / _SIGMA_PX)
        return blurred[_RADIUS_PX:-_RADIUS_PX, _RADIUS_PX:-_RADIUS_PX]

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * covariance + c2) / (var_a + var_b + c2)


def _halve(picture: FloatArray) -> FloatArray:
    """Means of 2 x 2 pixels; an odd last row or column is left out."""
    height, width = (n // 2 for n in picture.shape)
    halved: FloatArray = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3))
    return halved


def _compare(a: FloatArray, b: FloatArray, data_range: float) -> dict[str, float]:
    difference = a - b
    mse = float(np.mean(difference**2))
    if math.sqrt(mse) > data_range * 10 ** (-_PSNR_LIMIT_DB / 20):
        psnr = float(peak_signal_noise_ratio(a, b, data_range=data_range))  # type: ignore[no-untyped-call]
    else:
        psnr = _PSNR_LIMIT_DB
    return {
        "mae": float(np.abs(difference).mean()),
        "mse": mse,
        "psnr": psnr,
        "ssim": float(structural_similarity(a, b, data_range=data_range)),  # type: ignore[no-untyped-call]
        "ms_ssim": ms_ssim(a, b, data_range),
        **_correlations(a, b, data_range),
    }


def _correlations(a: FloatArray, b: FloatArray, data_range: float) -> dict[str, float]:
    """FRC50 and Pearson's correlation; 0 if a picture is constant: rounding correlates with what was divided by."""
    if is_constant(a, data_range) or is_constant(b, data_range):
        return {"frc50": 0.0, "corr": 0.0}
    return {"frc50": frc50(frc(a, b, data_range)), "corr": float(np.corrcoef(a.ravel(), b.ravel())[0, 1])}


def _spread(picture: FloatArray) -> float:
    low, high = np.percentile(picture, [0.5, 99.5])
    return float(high - low) or 1.0
