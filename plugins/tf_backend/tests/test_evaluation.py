"""See `backend_suite.evaluation`; with XLA, which compiles a function for each size of a batch, and without."""

from __future__ import annotations

from typing import Any

import pytest
from backend_suite.evaluation import *  # noqa: F403


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "xla"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"xla": request.param}
