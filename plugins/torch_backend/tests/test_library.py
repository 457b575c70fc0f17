"""Torch tensors as an array library: `backend_suite.arrays`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from backend_suite.arrays import *  # noqa: F403
from backend_suite.arrays import MakeLibrary, OnADevice

from ptychopinn_torch.arrays import TorchLibrary
from ptychopinn_torch.plugin import ptychopinn_reconstructors


@pytest.fixture
def device_library() -> MakeLibrary:
    """Tensors on the CPU."""
    return lambda memory_mb: TorchLibrary(torch.device("cpu"), deterministic=True, budget_mb=memory_mb)


class TestTorchOnADevice(OnADevice):
    """The conformance kit."""

    spec = ptychopinn_reconstructors()[0]
    model: ClassVar[Mapping[str, Any]] = {"n_filters_scale": 0.1, "iterations": 1, "group_size": 4}
    train: ClassVar[Mapping[str, Any]] = {"n_groups": 8, "batch_size": 2, "learning_rate": 0.02}
    learn: ClassVar[Mapping[str, Any]] = {"nepochs": 8, "n_groups": 7, "batch_size": 1}
    options: ClassVar[Mapping[str, Any]] = {"accelerator": "cpu"}
    gridsizes = (2,)
