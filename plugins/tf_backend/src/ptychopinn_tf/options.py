"""Options of the TensorFlow backend. This module must not import TensorFlow: the command line makes flags from it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ptychopinn.config.execution import Accelerator, MultiProcessOptions
from ptychopinn.config.settings import marks


class TfOptions(MultiProcessOptions):
    """Where and how TensorFlow computes."""

    xla: bool = Field(
        False,
        title="Compile with XLA",
        description="Compile the training with XLA: it starts slowly, and is faster on a GPU, seldom on a CPU.",
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
        if self.accelerator == Accelerator.CPU and self.gpu_memory_limit_mb is not None:
            raise ValueError(
                f"gpu_memory_limit_mb is {self.gpu_memory_limit_mb}, which has no effect with accelerator cpu"
            )
        return self
