"""Numerical settings of PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32(*, deterministic: bool) -> Iterator[None]:
    """Compute in true float32, and with deterministic algorithms if asked for; restores the settings afterwards.

    By default, convolutions on GPUs round factors to 10 bits (TensorFloat-32), so backends would differ.
    """
    before = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn, memory = torch.backends.cudnn, torch.utils.deterministic
    filled = memory.fill_uninitialized_memory  # type: ignore[attr-defined]
    kept = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # Uninitialised memory is never read here, and filling it takes up to a quarter of the time.
    memory.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with cudnn.flags(**kept, allow_tf32=False):
            yield
    finally:
        memory.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(before, warn_only=lenient)


@contextmanager
def any_order() -> Iterator[None]:
    """Let operations whose result is the same in every order take any; put back what was."""
    before = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=lenient)
