"""Torch tensors as an array library: `backend_suite.arrays`."""

from __future__ import annotations

import pytest
import torch
from backend_suite.arrays import *  # noqa: F403
from backend_suite.arrays import MakeLibrary

from ptychopinn_torch.arrays import TorchLibrary


@pytest.fixture
def device_library() -> MakeLibrary:
    """Tensors on the CPU."""
    return lambda memory_mb: TorchLibrary(torch.device("cpu"), deterministic=True, budget_mb=memory_mb)
