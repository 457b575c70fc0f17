"""The published network: `backend_suite.cnn`."""

from __future__ import annotations

from backend_suite.cnn import *  # noqa: F403
