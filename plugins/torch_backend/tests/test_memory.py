"""Batches that do not fit into memory: `backend_suite.memory`. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import pytest
import torch
from backend_suite.memory import *  # noqa: F403


@pytest.fixture
def out_of_memory() -> Exception:
    """Of this framework."""
    return torch.OutOfMemoryError("CUDA out of memory")
