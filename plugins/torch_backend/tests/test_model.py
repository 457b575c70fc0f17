"""Network and illumination: `backend_suite.model`."""

from __future__ import annotations

from backend_suite.model import *  # noqa: F403
