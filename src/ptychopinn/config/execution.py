"""Where and how a backend computes: the options that every backend has. A backend subclasses and adds its own."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from ptychopinn.config._base import Config


class Accelerator(StrEnum):
    """The device asked for is the device used."""

    AUTO = "auto"  # CUDA when there, else CPU
    CPU = "cpu"
    CUDA = "cuda"


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

    accelerator: Accelerator = Field(Accelerator.AUTO, description="Device: auto takes CUDA when there.")
    precision: Precision = Field(Precision.FLOAT32, description="Arithmetic of the network.")
    deterministic: bool = Field(
        True, description="Same seed, same result, with algorithms that repeat where the device has such."
    )
    num_workers: int = Field(
        0, ge=0, le=64, description="Threads that prepare batches ahead; 0 prepares each when it is wanted."
    )
    logger: LoggerKind = Field(
        LoggerKind.NONE,
        description="Where else to log the training history.",
        json_schema_extra={"training_only": True},
    )
