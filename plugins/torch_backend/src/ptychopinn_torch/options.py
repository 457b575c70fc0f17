"""Options of the PyTorch backend. Imports no torch: the command line makes its flags from this model."""

from __future__ import annotations

from ptychopinn.config.execution import ExecutionOptions


class TorchOptions(ExecutionOptions):
    """Where and how PyTorch computes."""
