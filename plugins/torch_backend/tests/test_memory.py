"""Batches that do not fit into memory: `backend_suite.memory`. Requirements: specs/16-hardening.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from backend_suite.memory import *  # noqa: F403

from ptychopinn_torch.objective import Objective


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From now on more than so many groups, or simulated patterns without groups, are too many."""

    def limit(most: int) -> None:
        original = Objective.forward

        def checked(self: Any, model: Any, batch: Any, *rest: Any) -> Any:
            if batch.size > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(self, model, batch, *rest)

        monkeypatch.setattr(Objective, "forward", checked)

    return limit
