"""Reconstructors over grids of dose, overlap, training patterns and gridsize."""

from __future__ import annotations

from ptychopinn.study.cells import Cell, Point
from ptychopinn.study.run import StudyResult, study_run
from ptychopinn.study.table import Median

__all__ = ["Cell", "Median", "Point", "StudyResult", "study_run"]
