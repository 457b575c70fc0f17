"""Comparisons whose candidates run out of memory: `backend_suite.comparison`."""

from __future__ import annotations

import pytest
from backend_suite.comparison import *  # noqa: F403


@pytest.fixture
def exhausted() -> str:
    """Of this framework."""
    return "exhausted_torch"
