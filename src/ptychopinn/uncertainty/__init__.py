"""How far a reconstruction can be trusted: standard errors of its phase and amplitude, and its resolution.

Two halves of the patterns are reconstructed from the finished object, blurred (`ptychopinn.uncertainty._halves`). What
they differ by, how far both together move from the object, where the light was, and how much fine detail the object has
(`ptychopinn.uncertainty._evidence`) give the errors by a formula fitted to simulated scans
(`ptychopinn.uncertainty._calibration`).
"""

from __future__ import annotations

from ptychopinn.uncertainty._estimate import (
    MIN_PATTERNS,
    Uncertainty,
    check_uncertainty,
    estimate_uncertainty,
)
from ptychopinn.uncertainty._evidence import HALVES_AGREE, TERMS, Evidence, ScanResult, gather_evidence

__all__ = [
    "HALVES_AGREE",
    "MIN_PATTERNS",
    "TERMS",
    "Evidence",
    "ScanResult",
    "Uncertainty",
    "check_uncertainty",
    "estimate_uncertainty",
    "gather_evidence",
]
