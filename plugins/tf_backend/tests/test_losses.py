"""Loss terms: `backend_suite.losses`. Requirements: specs/10-training.md."""

from __future__ import annotations

from backend_suite.losses import *  # noqa: F403
