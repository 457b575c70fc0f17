"""Options of the PyTorch backend. This module must not import torch: the command line makes flags from it."""

from __future__ import annotations

from ptychopinn.config.execution import MultiProcessOptions


class TorchOptions(MultiProcessOptions):
    """Where and how PyTorch computes."""
