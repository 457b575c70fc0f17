"""The physics inside the loss: `backend_suite.forward`."""

from __future__ import annotations

from backend_suite.forward import *  # noqa: F403
