"""One workflow over many scans, each in a process and a run directory of its own."""

from __future__ import annotations

from ptychopinn.batch.plan import read_plan
from ptychopinn.batch.run import BatchResult, batch_run
from ptychopinn.batch.table import ScanOutcome, ScanStatus

__all__ = ["BatchResult", "ScanOutcome", "ScanStatus", "batch_run", "read_plan"]
