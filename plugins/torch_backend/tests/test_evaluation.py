"""See `backend_suite.evaluation`."""

from __future__ import annotations

from backend_suite.evaluation import *  # noqa: F403
