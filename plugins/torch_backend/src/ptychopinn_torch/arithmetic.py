"""In what arithmetic PyTorch computes, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def arithmetic(*, deterministic: bool) -> Iterator[None]:
    """Compute float32 as float32, and with algorithms that repeat where there are such; put back what was.

    PyTorch otherwise lets convolutions on GPUs round factors to 10 bits (TensorFloat-32), which is not the same in
    every backend.
    """
    before = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    kept = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        with cudnn.flags(**kept, allow_tf32=False):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=lenient)
