"""Options of the NumPy backend: those that every backend has. One with a framework must not import it here."""

from __future__ import annotations

from ptychopinn.config.execution import ExecutionOptions


class NumpyOptions(ExecutionOptions):
    """Where and how NumPy computes."""
