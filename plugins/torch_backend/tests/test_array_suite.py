"""Torch as an array library (`array_suite`), with tensors on the CPU. Requirements: specs/19-arrays.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from array_suite.algorithms import *  # noqa: F403
from array_suite.operations import *  # noqa: F403

from ptychopinn.arrays import ArrayLibrary
from ptychopinn_torch.arrays import TorchLibrary


@pytest.fixture(params=[True, False], ids=["deterministic", "not deterministic"])
def library(request: pytest.FixtureRequest) -> Iterator[ArrayLibrary]:
    with TorchLibrary(torch.device("cpu"), deterministic=request.param, budget_mb=100).session() as library:
        yield library
