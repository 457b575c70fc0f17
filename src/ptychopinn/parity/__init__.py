"""Where two backends, models or devices part: every stage of one batch side by side."""

from __future__ import annotations

from ptychopinn.parity.run import TOLERANCE, ParityResult, parity_run
from ptychopinn.parity.stages import STAGES

__all__ = ["STAGES", "TOLERANCE", "ParityResult", "parity_run"]
