"""Options of every backend: where and how to compute. A backend subclasses and adds its own."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ptychopinn.config._base import Config
from ptychopinn.config.settings import marks

_CUDA_NUMBER = re.compile(r"cuda:(\d{1,3})", re.ASCII)
_OTHER_DEVICES = {
    "mps": "it has no double precision, and complex numbers only in part, which the physics needs; use cpu",
    "hip": "builds of PyTorch for ROCm call their devices cuda; use cuda",
    "rocm": "builds of PyTorch for ROCm call their devices cuda; use cuda",
}


class Accelerator(StrEnum):
    """The device; there is no silent fallback."""

    AUTO = "auto"  # CUDA if available, on the card with most free memory; else CPU
    CPU = "cpu"
    CUDA = "cuda"  # the first card


def _known_device(value: object) -> object:
    if not isinstance(value, str):
        return value  # refused by its type
    if value in list(Accelerator):
        return Accelerator(value)
    if _CUDA_NUMBER.fullmatch(value):
        return value
    known = "input should be 'auto', 'cpu', 'cuda' or 'cuda:K', K the number of a card"
    raise PydanticCustomError("device", _OTHER_DEVICES.get(value.partition(":")[0], known))


Device: TypeAlias = Annotated[Accelerator | str, BeforeValidator(_known_device)]
"""What `accelerator` may be: a word, or ``cuda:K``."""


def cuda_number(device: Accelerator | str) -> int | None:
    """The number K of ``cuda:K``, else None."""
    match = _CUDA_NUMBER.fullmatch(device)
    return None if match is None else int(match.group(1))


def asks_for_cuda(device: Accelerator | str) -> bool:
    """Whether CUDA is required."""
    return device == Accelerator.CUDA or cuda_number(device) is not None


class Precision(StrEnum):
    """Arithmetic of the network; the physics stays in float32."""

    FLOAT32 = "32"
    BFLOAT16 = "bf16"


class LoggerKind(StrEnum):
    """Where the training history goes besides the run directory."""

    NONE = "none"
    CSV = "csv"
    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"


class ExecutionOptions(Config):
    """Options that every backend has."""

    title: ClassVar[str] = "execution"

    accelerator: Device = Field(
        Accelerator.AUTO,
        title="Device",
        description="Where to compute: auto takes a CUDA GPU if there is one, else the CPU; cuda:1 is the second GPU.",
        json_schema_extra=marks(basic=True),
    )
    precision: Precision = Field(
        Precision.FLOAT32,
        title="Precision of the network",
        description="Arithmetic of the network: 32-bit or bfloat16. The physics is computed in 32 bits with either.",
    )
    deterministic: bool = Field(
        True,
        title="Repeatable",
        description="Use algorithms that give the same result for the same seed, where the device has them.",
    )
    device_memory_budget_mb: int | None = Field(
        None,
        ge=0,
        title="GPU memory for data",
        description="Memory of the GPU for patterns, patches and simulated objects. What does not fit stays on the "
        "host and is copied batch by batch.",
        json_schema_extra=marks(unit="MiB", unset="half of what is free"),
    )
    num_workers: int = Field(
        0,
        ge=0,
        le=64,
        title="Loader threads",
        description="Threads that prepare batches in advance. With 0 a batch is prepared when it is needed.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        title="Threads",
        description="Threads that compute the network on a CPU. A resumed training keeps its number, because the "
        "rounding depends on it.",
        json_schema_extra=marks(unset="one for each core that is granted and free"),
    )
    logger: LoggerKind = Field(
        LoggerKind.NONE,
        title="Logger",
        description="Where else to write the training history.",
        json_schema_extra=marks(training_only=True),
    )


class MultiProcessOptions(ExecutionOptions):
    """Options of a backend that spreads a training over processes, one for each device."""

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
