"""Which reconstructor is better, where, and by how much: any number of them on the same scans."""

from __future__ import annotations

from ptychopinn.comparison.legs import LegPlan, LegSettings, known_legs, plan_legs
from ptychopinn.comparison.run import ComparisonResult, compare_run
from ptychopinn.comparison.scans import Reading
from ptychopinn.comparison.table import Row, Status, read_table
from ptychopinn.comparison.verify import verify_comparison

__all__ = [
    "ComparisonResult",
    "LegPlan",
    "LegSettings",
    "Reading",
    "Row",
    "Status",
    "compare_run",
    "known_legs",
    "plan_legs",
    "read_table",
    "verify_comparison",
]
