"""The state of a training as named tensors and JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ptychopinn.training import checkpoint_tensors
from ptychopinn.typing import AnyArray


def module_arrays(module: nn.Module, group: str = "") -> dict[str, AnyArray]:
    """Copies of all parameters and buffers of a module, under ``group/`` if it has a name."""
    return {
        _name(group, name): np.atleast_1d(tensor.detach().cpu().numpy()).copy()
        for name, tensor in module.state_dict().items()
    }


def load_module(module: nn.Module, arrays: Mapping[str, AnyArray], group: str = "") -> None:
    """Put `module_arrays` back.

    Raises
    ------
    ArchiveError
        If a tensor is missing or of another shape.
    """
    state = module.state_dict()
    names = {_name(group, name): name for name in state}
    shapes = {name: tuple(state[inner].shape) for name, inner in names.items()}
    for name, array in checkpoint_tensors(arrays, shapes).items():
        state[names[name]] = torch.from_numpy(array.copy()).to(state[names[name]].dtype)
    module.load_state_dict(state)


def _name(group: str, name: str) -> str:
    return "/".join(filter(None, (group, name.replace(".", "/"))))


def optimizer_arrays(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, AnyArray]:
    """The moments of an optimizer: ``optimizer/<name of the parameter>/<name of the moment>``.

    Parameters
    ----------
    optimizer:
        The optimizer.
    names:
        Of its parameters, in their order.
    """
    return {
        f"optimizer/{names[index]}/{moment}": np.atleast_1d(torch.as_tensor(value).detach().cpu().numpy()).copy()
        for index, moments in optimizer.state_dict()["state"].items()
        for moment, value in moments.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, names: Sequence[str], arrays: Mapping[str, AnyArray]) -> None:
    """Put `optimizer_arrays` back into an optimizer over the same parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for index, (name, parameter) in enumerate(zip(names, parameters, strict=True)):
        prefix = f"optimizer/{name}/"
        for key in arrays:
            if key.startswith(prefix):
                moment = key.removeprefix(prefix)
                shape = torch.Size(()) if moment == "step" else parameter.shape
                state.setdefault(index, {})[moment] = torch.from_numpy(arrays[key].copy()).reshape(shape)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
