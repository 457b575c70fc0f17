"""Options of pty-chi's engines. Imports neither pty-chi nor torch."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from ptychopinn.config import Config
from ptychopinn.config.execution import Accelerator
from ptychopinn.config.settings import marks


class Engine(StrEnum):
    """Available engines of pty-chi."""

    LSQML = "lsqml"
    EPIE = "epie"
    RPIE = "rpie"


class PtychiOptions(Config):
    """Options of the solver `ptychi`."""

    title: ClassVar[str] = "pty-chi"

    engine: Engine = Field(Engine.LSQML, title="Engine", description="Reconstruction engine of pty-chi.")
    passes: int = Field(
        100, ge=1, le=100_000, title="Passes", description="Number of times that every pattern is used (epochs)."
    )
    batch_size: int = Field(
        64,
        ge=1,
        title="Batch size",
        description="Patterns that change the object together.",
        json_schema_extra=marks(unit="patterns"),
    )
    update_probe: bool = Field(False, title="Update the probe", description="Let the engine change the probe too.")
    follow_offset: bool = Field(
        True,
        title="Follow the detector offset",
        description="Before the start, move the probe's far field to where the patterns are on the detector.",
    )
    accelerator: Accelerator = Field(
        Accelerator.AUTO, title="Device", description="Where to compute: auto takes a CUDA GPU if there is one."
    )
    seed: int = Field(0, ge=0, title="Seed", description="Random seed of the order of the patterns.")
