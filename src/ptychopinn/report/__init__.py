"""Pictures and HTML reports. Matplotlib is imported only when a picture is drawn."""

from __future__ import annotations

from ptychopinn.report._attempt import attempt
from ptychopinn.report._candidates import candidates_picture, frc_picture
from ptychopinn.report._comparison import comparison_picture
from ptychopinn.report._html import ReportContent, Table, report_html, write_report
from ptychopinn.report._inspection import ScanView, inspection_picture
from ptychopinn.report._pictures import (
    ObjectView,
    amplitude_picture,
    history_picture,
    phase_picture,
    probe_picture,
    thumbnail_picture,
    uncertainty_picture,
    write_pictures,
)
from ptychopinn.report._stages import stage_picture
from ptychopinn.report._study import Curve, Panel, curves_picture, montage_picture

__all__ = [
    "Curve",
    "ObjectView",
    "Panel",
    "ReportContent",
    "ScanView",
    "Table",
    "amplitude_picture",
    "attempt",
    "candidates_picture",
    "comparison_picture",
    "curves_picture",
    "frc_picture",
    "history_picture",
    "inspection_picture",
    "montage_picture",
    "phase_picture",
    "probe_picture",
    "report_html",
    "stage_picture",
    "thumbnail_picture",
    "uncertainty_picture",
    "write_pictures",
    "write_report",
]
