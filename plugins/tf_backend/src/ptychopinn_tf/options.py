"""Options of the TensorFlow backend. This module must not import TensorFlow: the command line makes flags from it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ptychopinn.config.execution import Accelerator, ExecutionOptions, cuda_number


class TfOptions(ExecutionOptions):
    """Where and how TensorFlow computes."""

    num_workers: int = Field(0, ge=0, le=64, description="Threads that prepare batches ahead. 0: none.")
    xla: bool = Field(False, description="Compile with XLA: slower start, faster on a GPU, rarely on a CPU.")
    devices: int = Field(1, ge=1, le=64, description="Number of GPUs of this machine for a training.")
    gpu_memory_limit_mb: int | None = Field(
        None, ge=64, description="Limit on TensorFlow's memory on each GPU in MiB (default: none)."
    )

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.xla and self.devices > 1:
            raise ValueError(
                f"devices is {self.devices} and xla is on, but xla works on one device only: give one of them"
            )
        if self.devices > 1 and cuda_number(self.accelerator) is not None:
            raise ValueError(f"devices is {self.devices} and accelerator {self.accelerator}: give one of them")
        if self.accelerator == Accelerator.CPU:
            for name, value in (("devices", self.devices > 1), ("gpu_memory_limit_mb", self.gpu_memory_limit_mb)):
                if value:
                    raise ValueError(f"{name} is {getattr(self, name)}, which has no effect with accelerator cpu")
        return self
