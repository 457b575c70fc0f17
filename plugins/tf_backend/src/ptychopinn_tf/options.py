"""Options of the TensorFlow backend. This module must not import TensorFlow: the command line makes flags from it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ptychopinn.config.execution import Accelerator, ExecutionOptions, cuda_number
from ptychopinn.config.settings import marks


class TfOptions(ExecutionOptions):
    """Where and how TensorFlow computes."""

    xla: bool = Field(
        False,
        title="Compile with XLA",
        description="Compile the training with XLA: it starts slowly, and is faster on a GPU, seldom on a CPU.",
    )
    devices: int = Field(
        1, ge=1, le=64, title="GPUs", description="Number of GPUs of this machine that a training is spread over."
    )
    gpu_memory_limit_mb: int | None = Field(
        None,
        ge=64,
        title="GPU memory limit",
        description="Memory that TensorFlow may take on each GPU.",
        json_schema_extra=marks(unit="MiB", unset="as much as is needed"),
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
