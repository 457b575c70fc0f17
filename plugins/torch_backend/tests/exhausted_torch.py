"""PyTorch whose memory runs out when it predicts: a plugin for the tests of comparisons."""

from __future__ import annotations

from typing import Any

import torch

from ptychopinn.hookspecs import hookimpl
from ptychopinn.reconstructor import Capability, ReconstructorSpec
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.reconstructor import TorchReconstructor


def fail(*args: Any) -> Any:
    """As PyTorch does."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Tight(TorchReconstructor):
    """The first batch does not fit."""

    def _predictor(self, *args: Any) -> Any:
        (probe, predict), calls = super()._predictor(*args), 0

        def limited(counts: Any) -> Any:
            nonlocal calls
            calls += 1
            return fail() if calls == 1 else predict(counts)

        return probe, limited


class Full(TorchReconstructor):
    """No batch fits."""

    def _predictor(self, *args: Any) -> Any:
        return super()._predictor(*args)[0], fail


class Early(TorchReconstructor):
    """Nothing can be made ready."""

    def _predictor(self, *args: Any) -> Any:
        return fail()


@hookimpl
def ptychopinn_reconstructors() -> list[ReconstructorSpec]:
    """What this module registers when it is named as an entry point."""
    return [
        ReconstructorSpec(name, "", f"exhausted_torch:{name.title()}", TorchOptions, frozenset(Capability))
        for name in ("tight", "full", "early")
    ]
