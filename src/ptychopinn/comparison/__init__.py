"""Which reconstructor is better, where, and by how much: on one pair of scans, or over a grid of simulated ones."""

from __future__ import annotations

from ptychopinn.comparison.candidates import CandidatePlan, Planner, comparison_settings, known_candidates
from ptychopinn.comparison.run import ComparisonResult, compare_run
from ptychopinn.comparison.study import StudyResult, study_run
from ptychopinn.comparison.table import Row, Status, read_table
from ptychopinn.comparison.verify import verify_comparison

__all__ = [
    "CandidatePlan",
    "ComparisonResult",
    "Planner",
    "Row",
    "Status",
    "StudyResult",
    "compare_run",
    "comparison_settings",
    "known_candidates",
    "read_table",
    "study_run",
    "verify_comparison",
]
