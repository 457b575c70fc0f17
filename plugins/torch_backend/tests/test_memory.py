"""Batches that do not fit into memory: `backend_suite.memory`. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from backend_suite.memory import *  # noqa: F403
from torch_fits import fit_to

from ptychopinn.config import InferConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.reconstruction import reconstruct


@pytest.fixture
def out_of_memory() -> Exception:
    """Of this framework."""
    return torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def uncollected() -> Iterator[None]:
    """References alone free what nobody holds, until the end."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("train", [{}, {"simulate_objects": "mixed", "validation_fraction": 0.3, "n_groups": 3}])
def test_a_reconstructor_takes_its_weights_with_it(scan: ScanDataset, train: dict[str, Any]) -> None:
    """[HARD-022] No cycle of ours holds a model; what is left of its training goes with the next collection."""
    before = tensors()
    found = fit_to(scan, train=train)
    reconstruct(found.reconstructor, scan, InferConfig(refine=1))
    weights = [weakref.ref(weight) for weight in found.reconstructor.trained_model().parameters()]
    assert len(weights) > 10
    del found
    assert [weight for weight in weights if weight() is not None] == []
    gc.collect()
    assert tensors() <= before


def tensors() -> int:
    """How many are alive."""
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
