"""Numerical settings of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import torch

from ptychopinn.process_setting import ProcessSetting


def exact_float32(*, deterministic: bool) -> AbstractContextManager[None]:
    """Compute in true float32, and with deterministic algorithms if asked for; restores the settings afterwards.

    By default, convolutions on GPUs round factors to 10 bits (TensorFloat-32), so backends would differ. The settings
    are those of the process: algorithms are deterministic while any thread asks for it.
    """
    return _DETERMINISM.block(on=deterministic)


def any_order() -> AbstractContextManager[None]:
    """Let operations whose result is the same in every order take any; put back what was."""
    return _DETERMINISM.block(on=False)


def _save() -> Callable[[], None]:
    """Compute in true float32; returns what puts back this and the choice of algorithms."""
    before = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn, memory = torch.backends.cudnn, torch.utils.deterministic
    filled = memory.fill_uninitialized_memory  # type: ignore[attr-defined]
    kept = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    float32 = ExitStack()
    float32.enter_context(cudnn.flags(**kept, allow_tf32=False))
    # Uninitialised memory is never read here, and filling it takes up to a quarter of the time.
    memory.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    def put_back() -> None:
        memory.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        float32.close()
        torch.use_deterministic_algorithms(before, warn_only=lenient)

    return put_back


def _switch(on: bool) -> None:
    torch.use_deterministic_algorithms(on, warn_only=True)


_DETERMINISM = ProcessSetting(_save, _switch)
