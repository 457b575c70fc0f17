"""Batches that do not fit into memory: `backend_suite.memory`. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import pytest
import tensorflow as tf
from backend_suite.memory import *  # noqa: F403


@pytest.fixture
def out_of_memory() -> Exception:
    """Of this framework."""
    return tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
