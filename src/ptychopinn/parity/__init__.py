"""Find the first stage of a batch at which two backends, models or devices differ."""

from __future__ import annotations

from ptychopinn.parity.run import TOLERANCE, ParityResult, parity_run
from ptychopinn.parity.stages import STAGES

__all__ = ["STAGES", "TOLERANCE", "ParityResult", "parity_run"]
