"""Maps that the errors of an object follow from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from ptychopinn.arrays import NUMPY
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import ScoreError
from ptychopinn.geometry import Frame
from ptychopinn.metrics.alignment import ScanBox, scan_box
from ptychopinn.metrics.baselines import is_noisy, noise_residual
from ptychopinn.metrics.frc import FrcCurve, frc, frc50
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.scan_model import ScanModel
from ptychopinn.stitching import COVERED, coverage_of, patch_weights
from ptychopinn.tiles import Tiling
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray
from ptychopinn.uncertainty._halves import reconstruct_halves, remove_gauge

HALVES_AGREE = 1 / 7
"""Correlation of two halves where that of their mean with the truth is 1/2."""
_AREA_PX = 2.0  # standard deviation of the Gaussian that squares are averaged with
_DETAIL_PX = 1.0  # detail is what a Gaussian blur of this width removes
_FLOOR = 1e-9  # of squares, relative to that of the object

TERMS = (
    "1",
    "halves here",
    "shift here",
    "light here",
    "detail here",
    "shift",
    "light",
    "detail",
    "noise",
    "overlap",
    "flat start",
)
"""Terms of the logarithm of a squared error, beside that of the mean squared difference of the halves.

A term "here" is the logarithm of a square at the pixel, over its mean. Shift, light and detail are the logarithms of
the means over the mean of the halves, noise is that of the squared residual that noise leaves, and overlap that of the
mean coverage. So the formula has no unit: a larger object changes all squares alike.
"""
# Ranges of the residual of noise and of the mean coverage in the calibration; beyond them the nearest end holds.
_NOISE_RANGE = (0.02, 0.6)
_COVERAGE_RANGE = (2.4, 23.2)


@dataclass(frozen=True, eq=False)
class ScanResult:
    """An object, and how it was found."""

    object: ComplexArray  # (H, W) complex64 on the host
    frame: Frame
    model: ScanModel  # of the patterns' library
    flat_start: bool = False  # whether its passes started from a flat object, and not from a prediction


@dataclass(frozen=True, eq=False)
class Evidence:
    """Squares along and across the direction of the object in the complex plane: amplitude and phase."""

    object: ComplexArray  # (H, W) complex64
    lit: BoolArray  # (H, W), pixels that had light
    box: ScanBox  # box of scan positions; means are over it
    # (11, H, W) float32, the `TERMS`.
    amplitude_terms: FloatArray
    phase_terms: FloatArray
    # Mean squared half difference of the halves.
    amplitude_scale: float
    phase_scale: float
    few_photons: bool  # which of two calibrations holds (`ptychopinn.metrics.baselines.is_noisy`)
    frc: FrcCurve  # correlation of the halves


def gather_evidence(patterns: Patterns, result: ScanResult, monitor: Monitor = NULL_MONITOR) -> Evidence:
    """Reconstruct two halves of a scan, and compare them with each other and with the object.

    Raises
    ------
    Cancelled
        If the monitor is cancelled.
    """
    size, positions = patterns.data.N, result.model.positions
    wide = Frame.around(positions, size)  # no window leaves it
    obj = np.ones(wide.shape, np.complex64)
    wide.paste(obj, result.object, result.frame)
    even, odd = reconstruct_halves(patterns, obj, wide, result.model, monitor)
    probe = patterns.library.to_host(result.model.probe)
    brightest = float((np.abs(probe) ** 2).sum(axis=0).max())
    tiling = Tiling(wide, NUMPY, positions, size, NUMPY)
    coverage = coverage_of(positions, patch_weights(probe, size), tiling)

    box = scan_box(wide.local(positions), wide.shape)
    even, odd = (remove_gauge(half, obj, box.slices) for half in (even, odd))
    curve = frc(even[box.slices], odd[box.slices])
    direction = np.where(obj == 0, np.complex64(1), obj)
    direction /= np.abs(direction)
    apart = (even - odd) / 2 * direction.conj()
    shift = ((even + odd) / 2 - obj) * direction.conj()
    lit = coverage > COVERED
    squares = _Squares(lit, box, float((np.abs(obj[box.slices]) ** 2).mean()))
    light = squares.level(1 / (2 * brightest * np.maximum(coverage, COVERED)))
    blurred = gaussian_filter(obj.real, _DETAIL_PX) + 1j * gaussian_filter(obj.imag, _DETAIL_PX)
    detail = squares.average(np.abs(obj - blurred) ** 2)

    noise = float(np.clip(noise_residual(patterns), *_NOISE_RANGE))
    covered = float(np.clip(1 / (2 * brightest * squares.mean(light)), *_COVERAGE_RANGE))
    of_scan = (2 * math.log(noise), math.log(covered), float(result.flat_start))

    def terms(difference: FloatArray, common: FloatArray) -> tuple[FloatArray, float]:
        halves, moved = squares.average(difference**2), squares.average(common**2)
        means = [squares.mean(values) for values in (halves, moved, light, detail)]
        here = [np.log(v / m) for v, m in zip((halves, moved, light, detail), means, strict=True)]
        ratios = [np.full(obj.shape, np.log(mean / means[0])) for mean in means[1:]]
        scalars = [np.full(obj.shape, value) for value in of_scan]
        stacked = np.stack([np.ones(obj.shape), *here, *ratios, *scalars]).astype(np.float32)
        return _in_frame(stacked, wide, result.frame), means[0]

    amplitude_terms, amplitude_scale = terms(apart.real, shift.real)
    phase_terms, phase_scale = terms(apart.imag, shift.imag)
    local = scan_box(result.frame.local(positions), result.frame.shape)
    return Evidence(
        object=result.object,
        lit=_in_frame(lit, wide, result.frame),
        box=local,
        amplitude_terms=amplitude_terms,
        phase_terms=phase_terms,
        amplitude_scale=amplitude_scale,
        phase_scale=phase_scale,
        few_photons=is_noisy(patterns),
        frc=curve,
    )


@dataclass(frozen=True, eq=False)
class _Squares:
    """Averages of squares over pixels with light."""

    lit: BoolArray
    box: ScanBox
    of_object: float

    def average(self, squares: FloatArray) -> FloatArray:
        """Averages around each pixel."""
        weights = np.maximum(gaussian_filter(self.lit.astype(np.float32), _AREA_PX), 1e-6)
        return self.level(gaussian_filter(np.where(self.lit, squares, 0), _AREA_PX) / weights)

    def level(self, squares: FloatArray) -> FloatArray:
        """No square is below the floor, so that logarithms are finite."""
        floored: FloatArray = np.maximum(squares, _FLOOR * self.of_object)
        return floored

    def mean(self, squares: FloatArray) -> float:
        """Mean over the box."""
        return float(squares[self.box.slices].mean(dtype=np.float64))


def resolved_frequency(curve: FrcCurve) -> float:
    """Frequency down to which two halves agree, cycles per pixel; at least that of the first ring."""
    first = float(curve.frequency[0])
    try:
        return max(frc50(curve, HALVES_AGREE), first)
    except ScoreError:
        return first


def _in_frame(values: AnyArray, wide: Frame, frame: Frame) -> AnyArray:
    """(..., H, W) values of one frame in another; 0 where there are none."""
    out = np.zeros((*values.shape[:-2], *frame.shape), values.dtype)
    here, there = frame.overlap(wide)
    out[(..., *here)] = values[(..., *there)]
    return out
