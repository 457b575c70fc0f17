"""Options of the PyTorch backend. This module must not import torch: the command line makes flags from it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ptychopinn.config.execution import ExecutionOptions, cuda_number
from ptychopinn.config.settings import marks


class TorchOptions(ExecutionOptions):
    """Where and how PyTorch computes."""

    devices: int = Field(
        1,
        ge=1,
        le=64,
        title="GPUs",
        description="Number of GPUs of each machine that a training is spread over, each with a process of its own; "
        "with accelerator cpu, of processes.",
        json_schema_extra=marks(training_only=True),
    )
    num_nodes: int = Field(
        1,
        ge=1,
        le=1024,
        title="Machines",
        description="Number of machines that a training is spread over. A launcher (torchrun, srun) starts the "
        "command once for each GPU of each.",
        json_schema_extra=marks(training_only=True),
    )

    @property
    def process_count(self) -> int:
        """Number of the processes of a training."""
        return self.devices * self.num_nodes

    @model_validator(mode="after")
    def _one_device_or_several(self) -> Self:
        if self.devices > 1 and cuda_number(self.accelerator) is not None:
            raise ValueError(f"devices is {self.devices} and accelerator {self.accelerator}: give one of them")
        return self
