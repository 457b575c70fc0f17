"""Batches that do not fit into memory: `backend_suite.memory`. Requirements: specs/16-hardening.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from backend_suite.memory import *  # noqa: F403

from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.objective import Objective


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From now on more than so many groups, or simulated patterns without groups, are too many."""

    def limit(most: int) -> None:
        original = Objective.__call__

        def checked(self: Any, model: Any, batch: Any, *rest: Any) -> Any:
            if batch["counts" if "counts" in batch else "simulated_counts"].shape[0] > most:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
            return original(self, model, batch, *rest)

        monkeypatch.setattr(Objective, "__call__", checked)

    return limit
