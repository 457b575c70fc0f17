"""Standard errors and resolution of an object."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import DataError
from ptychopinn.metrics.alignment import MIN_SIDE_PX, ScanBox, scan_box
from ptychopinn.metrics.frc import FrcCurve
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.short_repr import ShortRepr
from ptychopinn.typing import FloatArray
from ptychopinn.uncertainty._calibration import COEFFICIENTS
from ptychopinn.uncertainty._evidence import TERMS, Evidence, ScanResult, gather_evidence, resolved_frequency

MIN_PATTERNS = 20
"""Fewest patterns of which two halves tell anything."""
MAX_PHASE_ERROR_RAD = math.pi / math.sqrt(3)
"""Standard deviation of a phase that is not known at all."""


@dataclass(frozen=True, eq=False, repr=False)
class Uncertainty(ShortRepr):
    """Standard errors of an object, and its resolution.

    Global phase, phase ramp and scale of the amplitude, which patterns do not determine, are not among the errors.
    Source of the threshold of the resolution: Rosenthal & Henderson, J. Mol. Biol. 333, 721 (2003).
    """

    phase_error: FloatArray  # (H, W) float32, rad; at most pi / sqrt 3, that of any phase. NaN where no light was.
    amplitude_error: FloatArray  # (H, W) float32; NaN where no light was
    frc: FrcCurve  # Fourier ring correlation of the two halves inside the box of scan positions
    # Half a period of the finest detail in pixels, 1 at best: where the correlation of the halves falls below 1/7.
    resolution_px: float
    resolution_m: float | None  # the same in metres; None if the pixel size is not known
    box: ScanBox  # box of scan positions, in pixels of the object

    @property
    def median_phase_error(self) -> float:
        """Median inside the box, rad."""
        return float(np.nanmedian(self.phase_error[self.box.slices]))

    @property
    def median_amplitude_error(self) -> float:
        """Median inside the box."""
        return float(np.nanmedian(self.amplitude_error[self.box.slices]))


def check_uncertainty(data: ScanDataset) -> None:
    """Refuse a scan whose halves tell nothing.

    Raises
    ------
    DataError
        If it has fewer than `MIN_PATTERNS` patterns, or its positions span less than 11 px (19 with the margins).
    """
    if len(data) < MIN_PATTERNS:
        raise DataError(
            f"Standard errors come from two halves of the patterns; the scan has {len(data)} patterns.",
            f"Give at least {MIN_PATTERNS} patterns, or leave the uncertainty out.",
        )
    local = data.positions - data.positions.min(axis=0)
    high, wide = (int(side) + 1 for side in local.max(axis=0))
    box = scan_box(local, (high, wide))
    if min(box.shape) < MIN_SIDE_PX:
        raise DataError(
            f"Standard errors need positions over an area; those of the scan span {high} x {wide} pixels.",
            "Give a scan over a larger area, or leave the uncertainty out.",
        )


def estimate_uncertainty(patterns: Patterns, result: ScanResult, *, monitor: Monitor = NULL_MONITOR) -> Uncertainty:
    """Standard errors of an object that passes made, and its resolution.

    Parameters
    ----------
    patterns:
        All patterns of the scan; their library computes.
    result:
        The object, and probe, positions, flux and background it was found with.
    monitor:
        Gets each pass as "uncertainty", and is asked at every batch.

    Raises
    ------
    DataError
        As `check_uncertainty`.
    Cancelled
        If the monitor is cancelled.
    """
    check_uncertainty(patterns.data)
    evidence = gather_evidence(patterns, result, monitor)
    amplitude, across = standard_errors(evidence)
    phase = across * MAX_PHASE_ERROR_RAD / np.hypot(across, MAX_PHASE_ERROR_RAD * np.abs(evidence.object))
    pixel = patterns.data.metadata.pixel_size_m
    resolution = 1 / (2 * resolved_frequency(evidence.frc))
    return Uncertainty(
        phase_error=np.where(evidence.lit, phase, np.nan).astype(np.float32),
        amplitude_error=np.where(evidence.lit, amplitude, np.nan).astype(np.float32),
        frc=evidence.frc,
        resolution_px=resolution,
        resolution_m=None if pixel is None else resolution * pixel,
        box=evidence.box,
    )


def standard_errors(evidence: Evidence) -> tuple[FloatArray, FloatArray]:
    """(H, W) standard errors along and across the object in the complex plane, in its unit."""
    calibrated = COEFFICIENTS["few" if evidence.few_photons else "many"]

    def errors(terms: FloatArray, scale: float, quantity: str) -> FloatArray:
        coefficients = np.asarray(calibrated[quantity], np.float32)
        found: FloatArray = math.sqrt(scale) * np.exp(np.tensordot(coefficients, terms, 1) / 2)
        inside = found[evidence.box.slices].copy()
        # Outside the box the halves agree because both keep the start; there the light alone says more.
        found = np.maximum(found, np.median(inside) * np.exp(terms[TERMS.index("light here")] / 2))
        found[evidence.box.slices] = inside
        return found

    return (
        errors(evidence.amplitude_terms, evidence.amplitude_scale, "amplitude"),
        errors(evidence.phase_terms, evidence.phase_scale, "phase"),
    )
