"""Options of the PyTorch backend. Imports no torch: the command line makes its flags from this model."""

from __future__ import annotations

from pydantic import Field

from ptychopinn.config.execution import ExecutionOptions


class TorchOptions(ExecutionOptions):
    """Where and how PyTorch computes."""

    device_memory_budget_mb: int | None = Field(
        None,
        ge=0,
        description="MiB of the device's memory for the scans of a training and for simulated objects; what does not "
        "fit is read or made on the host, batch by batch (default: half of what is free on a GPU, none on a CPU).",
        json_schema_extra={"training_only": True},
    )
