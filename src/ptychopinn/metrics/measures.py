"""Scores of amplitude and phase of an aligned pair.

PSNR and SSIM come from scikit-image with the data range given. MS-SSIM: Wang, Simoncelli & Bovik, Asilomar
Conference on Signals, Systems & Computers, 2003.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from scipy.ndimage import gaussian_filter

from ptychopinn.errors import DataError, ScoreError
from ptychopinn.metrics.alignment import MIN_SIDE_PX, Aligned
from ptychopinn.metrics.frc import ROUNDING, frc, frc50, is_constant
from ptychopinn.typing import ComplexArray, FloatArray

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003, finest scale first
_PSNR_LIMIT_DB = 313.0  # for identical pictures: finite, hence valid JSON
_SIGMA_PX, _RADIUS_PX = 1.5, 5  # the 11 x 11 Gaussian window of SSIM
_NO_PHASE = 0.5  # share of pixels without amplitude from which a picture has no phase


class Measures(dict[str, float]):
    """Name to score, in the order of the table; NaN for a score that cannot be computed.

    ``missing`` has the name of each of those, and why.
    """

    def __init__(self, values: Mapping[str, float], missing: Mapping[str, str]) -> None:
        super().__init__(values)
        self.missing = dict(missing)

    @property
    def record(self) -> dict[str, float | dict[str, str] | None]:
        """For files: None for what is missing, and, if anything is, the reasons under ``cannot_be_computed``."""
        values = {name: None if name in self.missing else value for name, value in self.items()}
        return {**values, **({"cannot_be_computed": self.missing} if self.missing else {})}


def score(aligned: Aligned, *, amp_range: float | None = None, phase_range: float | None = None) -> Measures:
    """All scores of an aligned pair.

    Phases are principal values relative to the phase of the reference's mean, in rad.

    Parameters
    ----------
    amp_range, phase_range:
        Data ranges of PSNR, SSIM and MS-SSIM; None: the difference of the 0.5 and 99.5 percentiles of the reference
        (that of all values if it is 0).

    Returns
    -------
    Measures
        ``amp_`` and ``phase_`` before each of ``mae``, ``mse``, ``psnr`` (dB, at most 313), ``ssim``,
        ``ms_ssim``, ``frc50`` (cycles per pixel), ``corr`` (Pearson); and ``nrmse``, ``|G - R| / |G|`` of the complex
        pair. Each is finite, or NaN with a reason: a constant reference has no data range, a constant picture no
        correlation, a picture of zeros no phase.

    Raises
    ------
    DataError
        If a data range is not positive.
    """
    g, r = aligned.reference, aligned.reconstruction
    turn = np.exp(-1j * np.angle(g.mean()))
    figures: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name, a, b, data_range, unit in (
        ("amp", np.abs(g), np.abs(r), amp_range, 0.0),
        ("phase", np.angle(g * turn), np.angle(r * turn), phase_range, 1.0),  # precise to the rounding of a radian
    ):
        if data_range is not None and not (math.isfinite(data_range) and data_range > 0):
            raise DataError(f"The data range of the {name} is {data_range}.", "Give a positive data range.")
        undefined = _without_phase(g, r) if name == "phase" else None
        for key, measure in _measures(a, b, data_range, unit).items():
            try:
                if undefined is not None:
                    raise ScoreError(undefined)
                value = measure()
            except ScoreError as error:
                value, missing[f"{name}_{key}"] = math.nan, error.problem
            figures[f"{name}_{key}"] = value
    figures["nrmse"] = float(np.linalg.norm(g - r) / np.linalg.norm(g))
    return Measures(figures, missing)


def ms_ssim(a: FloatArray, b: FloatArray, data_range: float) -> float:
    """Multi-scale structural similarity of two pictures.

    Contrast and structure are compared at every scale, luminance at the coarsest, each with its published weight. Each
    scale halves the picture by averaging 2 x 2 pixels. A picture with a shorter side below 176 px is too small for five
    scales: only the finest ones, down to 11 px, are used, and their weights are scaled to the sum 1.

    Parameters
    ----------
    a, b:
        (h, w) real, finite, of one shape, at least 11 x 11.
    data_range:
        Span of the values, in their unit.

    Returns
    -------
    float above 0; 1 for identical pictures.

    Raises
    ------
    DataError
        If the shapes differ or are too small.
    ScoreError
        If the term of a scale is not positive, which has no power of a fraction: the pictures are unlike there, or
        opposite.
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
        if term <= 0:
            raise ScoreError(
                f"MS-SSIM cannot be computed: its term of scale {scale + 1} of {scales} is {term:.3f}, and a negative "
                "number has no power of a fraction."
            )
        result *= term ** float(weight)
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


def _measures(a: FloatArray, b: FloatArray, data_range: float | None, unit: float) -> dict[str, Callable[[], float]]:
    """How each score of two pictures is computed; ``unit`` is the size of the values that they come from."""
    span = _value_range(a, unit) if data_range is None else data_range
    mse = float(np.mean((a - b) ** 2))

    def in_range(measure: Callable[[float], float]) -> float:
        if span is None:
            raise ScoreError("It cannot be computed: the reference is constant and has no range.")
        return float(measure(span))

    def psnr(span: float) -> float:
        if math.sqrt(mse) <= span * 10 ** (-_PSNR_LIMIT_DB / 20):
            return _PSNR_LIMIT_DB
        from skimage.metrics import peak_signal_noise_ratio  # loads scipy.stats: a third of the start of every process

        return float(peak_signal_noise_ratio(a, b, data_range=span))  # type: ignore[no-untyped-call]

    def ssim(span: float) -> float:
        from skimage.metrics import structural_similarity

        return float(structural_similarity(a, b, data_range=span))  # type: ignore[no-untyped-call]

    def corr() -> float:
        for picture, name in ((a, "reference"), (b, "reconstruction")):
            if is_constant(picture, max(unit, float(np.abs(a).max()))):
                raise ScoreError(f"The correlation cannot be computed: the {name} is constant.")
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    return {
        "mae": lambda: float(np.abs(a - b).mean()),
        "mse": lambda: mse,
        "psnr": lambda: in_range(psnr),
        "ssim": lambda: in_range(ssim),
        "ms_ssim": lambda: in_range(lambda span: ms_ssim(a, b, span)),
        "frc50": lambda: frc50(frc(a, b, unit)),
        "corr": corr,
    }


def _without_phase(g: ComplexArray, r: ComplexArray) -> str | None:
    """Why phases cannot be compared, if they cannot."""
    for picture, name in ((g, "reference"), (r, "reconstruction")):
        empty = float(np.mean(np.abs(picture) <= ROUNDING * np.abs(g).max()))
        if empty > _NO_PHASE:
            return f"It cannot be computed: {empty:.0%} of the {name} is 0 and has no phase."
    return None


def _value_range(picture: FloatArray, unit: float) -> float | None:
    """Difference of the 0.5 and 99.5 percentiles, else of all values; None for a constant picture."""
    if is_constant(picture, unit):
        return None
    low, high = np.percentile(picture, [0.5, 99.5])
    return float(high - low) or float(np.ptp(picture))
