"""Scans that stay on the device: `backend_suite.resident`. Requirements: specs/10-training.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from backend_suite.resident import *  # noqa: F403

from ptychopinn.arrays import ArrayLibrary
from ptychopinn_torch.arrays import TorchLibrary


@pytest.fixture
def device_library() -> Callable[[int], ArrayLibrary]:
    """On the CPU."""
    return lambda budget_mb: TorchLibrary(torch.device("cpu"), deterministic=True, budget_mb=budget_mb)
