"""Convert the state of a training to named tensors and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ptychopinn.training import checkpoint_tensors
from ptychopinn.typing import AnyArray


def module_arrays(module: nn.Module, group: str = "") -> dict[str, AnyArray]:
    """Copies of all parameters and buffers of a module, under ``group/`` if it has a name."""
    return {_name(group, name): array for name, array in _arrays(module.state_dict()).items()}


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, AnyArray]:
    """Copy tensors of one device in one transfer; scalars become (1,)."""
    flat = [tensor.detach().reshape(-1) for tensor in tensors.values()]
    data = torch.cat([part.view(torch.uint8) for part in flat]).cpu().numpy() if flat else np.zeros(0, np.uint8)
    ends = np.cumsum([part.nbytes for part in flat])
    found: dict[str, AnyArray] = {}
    for (name, tensor), part, end in zip(tensors.items(), flat, ends, strict=True):
        dtype = torch.empty(0, dtype=part.dtype).numpy().dtype
        found[name] = data[end - part.nbytes : end].copy().view(dtype).reshape(tuple(tensor.shape) or (1,))
    return found


def load_module(module: nn.Module, arrays: Mapping[str, AnyArray], group: str = "") -> None:
    """Restore `module_arrays`. Raises ArchiveError if a tensor is missing or of another shape."""
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

    ``names`` are those of its parameters in order.
    """
    return _arrays(
        {
            f"optimizer/{names[index]}/{moment}": value
            for index, moments in optimizer.state_dict()["state"].items()
            for moment, value in moments.items()
        }
    )


def load_optimizer(optimizer: torch.optim.Optimizer, names: Sequence[str], arrays: Mapping[str, AnyArray]) -> None:
    """Restore `optimizer_arrays` in an optimizer of the same parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for index, (name, parameter) in enumerate(zip(names, parameters, strict=True)):
        prefix = f"optimizer/{name}/"
        for key in arrays:
            if key.startswith(prefix):
                moment = key.removeprefix(prefix)
                value = torch.from_numpy(arrays[key].copy())
                # Moments need the memory layout of the weight, which fused kernels assume.
                whole = (
                    value.reshape(())
                    if moment == "step"
                    else torch.empty_like(parameter).copy_(value.reshape(parameter.shape))
                )
                state.setdefault(index, {})[moment] = whole
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
