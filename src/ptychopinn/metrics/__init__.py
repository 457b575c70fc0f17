"""Scores of a reconstruction, with and without a reference."""

from __future__ import annotations

from ptychopinn.metrics.alignment import (
    MAX_SHIFT_PX,
    MIN_SIDE_PX,
    Aligned,
    ScanBox,
    align,
    linear_phase,
    ramp_of,
    remove_linear_phase,
    scan_box,
)
from ptychopinn.metrics.frc import FrcCurve, frc, frc50
from ptychopinn.metrics.measures import Measures, ms_ssim, score
from ptychopinn.metrics.quality import FLATNESS_LIMIT, flatness, forward_residual

__all__ = [
    "FLATNESS_LIMIT",
    "MAX_SHIFT_PX",
    "MIN_SIDE_PX",
    "Aligned",
    "FrcCurve",
    "Measures",
    "ScanBox",
    "align",
    "flatness",
    "forward_residual",
    "frc",
    "frc50",
    "linear_phase",
    "ms_ssim",
    "ramp_of",
    "remove_linear_phase",
    "scan_box",
    "score",
]
