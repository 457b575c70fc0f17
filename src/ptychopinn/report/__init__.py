"""Pictures and HTML reports. Matplotlib is imported only when a picture is drawn."""

from __future__ import annotations

from ptychopinn.report._attempt import attempt
from ptychopinn.report._axes import draw_history, draw_pattern, draw_positions, new_axes
from ptychopinn.report._candidates import bare_phase, candidates_picture, frc_picture
from ptychopinn.report._cards import card_html, card_picture
from ptychopinn.report._comparison import comparison_picture
from ptychopinn.report._figure import load_matplotlib
from ptychopinn.report._html import ReportContent, Table, report_html, write_report
from ptychopinn.report._inspection import ScanView, inspection_picture
from ptychopinn.report._pictures import (
    ObjectPart,
    ObjectView,
    amplitude_picture,
    bare_picture,
    draw_object,
    draw_probe,
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
    "ObjectPart",
    "ObjectView",
    "Panel",
    "ReportContent",
    "ScanView",
    "Table",
    "amplitude_picture",
    "attempt",
    "bare_phase",
    "bare_picture",
    "candidates_picture",
    "card_html",
    "card_picture",
    "comparison_picture",
    "curves_picture",
    "draw_history",
    "draw_object",
    "draw_pattern",
    "draw_positions",
    "draw_probe",
    "frc_picture",
    "history_picture",
    "inspection_picture",
    "load_matplotlib",
    "montage_picture",
    "new_axes",
    "phase_picture",
    "probe_picture",
    "report_html",
    "stage_picture",
    "thumbnail_picture",
    "uncertainty_picture",
    "write_pictures",
    "write_report",
]
