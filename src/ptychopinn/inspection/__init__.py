"""Inspect a scan: do patterns, positions and probe agree with each other, and if not, what change makes them agree?

Modules: ``changes`` (what may be wrong: axes, signs, scale, order), ``trial`` (a few passes on a part of the scan,
judged by patterns that the passes do not use), ``geometry`` (compare the changes).
"""

from ptychopinn.inspection.changes import Change
from ptychopinn.inspection.geometry import (
    Agreement,
    GeometryCheck,
    check_geometry,
    check_geometry_quickly,
    check_geometry_stepwise,
    excess_of_scan,
)
from ptychopinn.inspection.trial import Trial, TrialPatch

__all__ = [
    "Agreement",
    "Change",
    "GeometryCheck",
    "Trial",
    "TrialPatch",
    "check_geometry",
    "check_geometry_quickly",
    "check_geometry_stepwise",
    "excess_of_scan",
]
