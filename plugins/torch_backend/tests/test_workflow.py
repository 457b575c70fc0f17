"""Runs from file to file: `backend_suite.workflow`."""

from __future__ import annotations

from backend_suite.workflow import *  # noqa: F403
