"""Options of pty-chi's engines; imports neither it nor torch."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from ptychopinn.config import Config
from ptychopinn.config.execution import Accelerator


class Engine(StrEnum):
    """Engines of pty-chi that are offered."""

    LSQML = "lsqml"
    EPIE = "epie"
    RPIE = "rpie"


class PtychiOptions(Config):
    """Options of the solver `ptychi`."""

    engine: Engine = Field(Engine.LSQML, description="Engine of pty-chi.")
    passes: int = Field(100, ge=1, le=100_000, description="Epochs.")
    batch_size: int = Field(64, ge=1, description="Patterns that act at once.")
    update_probe: bool = Field(False, description="Let the engine change the probe too.")
    follow_offset: bool = Field(
        True, description="Put the offset of the patterns on the detector into the probe before it starts."
    )
    accelerator: Accelerator = Field(Accelerator.AUTO, description="Device: auto takes CUDA when there.")
    seed: int = Field(0, ge=0, description="Order of the patterns.")
