"""Options of the NumPy backend. A backend with a framework must not import it here."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from ptychopinn.config.execution import Accelerator, ExecutionOptions, Precision


class NumpyOptions(ExecutionOptions):
    """Where and how NumPy computes: on the CPU, in float32, in one process."""

    @model_validator(mode="after")
    def _only_what_there_is(self) -> Self:
        if self.accelerator is Accelerator.CUDA:
            raise ValueError("accelerator is cuda; NumPy computes on the cpu")
        if self.precision is not Precision.FLOAT32:
            raise ValueError(f"precision is {self.precision}; NumPy computes in 32")
        if self.num_workers:
            raise ValueError(f"num_workers is {self.num_workers}; this backend has none")
        return self
