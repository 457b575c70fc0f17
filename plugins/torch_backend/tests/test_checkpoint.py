"""Training checkpoints: what is PyTorch's own; the rest is `backend_suite.checkpoint`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from backend_suite.checkpoint import *  # noqa: F403

from ptychopinn.errors import ArchiveError
from ptychopinn_torch.checkpoint import load_module, load_optimizer, module_arrays, optimizer_arrays


def test_modules_and_optimizers_come_back_as_they_were() -> None:
    def make_pair() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        return module, torch.optim.AdamW(module.parameters(), lr=0.1)

    def step(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        module(torch.arange(12.0).reshape(4, 3)).square().sum().backward()
        optimizer.step()

    module, optimizer = make_pair()
    for _ in range(3):
        step(module, optimizer)
    names = [name for name, _ in module.named_parameters()]
    arrays = {**module_arrays(module, "net"), **optimizer_arrays(optimizer, names)}
    again, other = make_pair()
    load_module(again, arrays, "net")
    load_optimizer(other, names, arrays)
    for _ in range(2):
        step(module, optimizer)
        step(again, other)
    for a, b in zip(module.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("change", "message"), [(None, "missing"), (np.zeros(7), r"of shape \(7,\), not \(2, 3\)")])
def test_a_tensor_that_does_not_fit_is_named(change: Any, message: str) -> None:
    module = torch.nn.Linear(3, 2)
    arrays = module_arrays(module, "net")
    arrays.pop("net/weight")
    if change is not None:
        arrays["net/weight"] = change
    with pytest.raises(ArchiveError, match=rf"'net/weight' is {message}"):
        load_module(module, arrays, "net")
