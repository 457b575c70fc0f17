"""What a CUDA graph does, with CPU tensors: operations are recorded with their tensors, and replayed without Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

ResultT = TypeVar("ResultT")


def tensors_of(tree: Any) -> list[Tensor]:
    """All tensors in nested arguments."""
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


class _Tape(TorchDispatchMode):
    """Keeps every operation with its tensors, and the values of tensors that were there before and are changed."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for number, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = kwargs.get(argument.name, args[number] if number < len(args) else None)
                for tensor in tensors_of(given):
                    place = tensor.untyped_storage()._cdata
                    if place not in self._made and place not in self.before:
                        self.before[place] = (tensor, tensor.clone())
        given_places = {tensor.untyped_storage()._cdata for tensor in tensors_of((args, kwargs))}
        result = func(*args, **kwargs)
        self._made |= {tensor.untyped_storage()._cdata for tensor in tensors_of(result)} - given_places
        self.operations.append((func, args, kwargs, result))
        return result


class OperationRecorder:
    """A `ptychopinn_torch.captured.Recorder` of the CPU; counts what it is asked for.

    Parameters
    ----------
    error:
        Raised at the end of each recording.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.warmed, self.recorded, self.replayed = 0, 0, 0
        self.recording = False

    def warm_up(self, compute: Callable[[], ResultT]) -> ResultT:
        """Compute."""
        self.warmed += 1
        return compute()

    def record(self, compute: Callable[[], ResultT]) -> tuple[ResultT, Callable[[], object]]:
        """Compute, and put back what was changed: on a device, recording computes nothing."""
        self.recorded += 1
        self.recording = True
        tape = _Tape()
        try:
            with tape:
                result = compute()
                if self.error is not None:
                    raise self.error
        finally:
            self.recording = False
            with torch.no_grad():
                for tensor, values in tape.before.values():
                    tensor.copy_(values)

        def replay() -> None:
            self.replayed += 1
            with torch.no_grad():
                for func, args, kwargs, recorded in tape.operations:
                    for old, new in zip(tensors_of(recorded), tensors_of(func(*args, **kwargs)), strict=True):
                        if old.data_ptr() != new.data_ptr():
                            old.copy_(new)

        return result, replay
