"""The network: `backend_suite.network`."""

from __future__ import annotations

from backend_suite.network import *  # noqa: F403
