"""Settings of the iterative solvers of the core."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ptychopinn.config._base import Config
from ptychopinn.config.settings import marks


class SolverOptions(Config):
    """Options of `epie` and `rpie`."""

    title: ClassVar[str] = "iterative solvers"

    passes: int = Field(
        100, ge=1, le=100_000, title="Passes", description="Number of times that every pattern is used."
    )
    update_probe: bool = Field(False, title="Update the probe", description="Let the solver change the probe too.")
    follow_offset: bool = Field(
        True,
        title="Follow the detector offset",
        description="Before the start, move the probe's far field to where the patterns are on the detector.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        title="Batch size",
        description="Patterns that change the object together.",
        json_schema_extra=marks(unit="patterns", unset="1/32 of the scan, 8 to 32; more in long scans of small ones"),
    )
    cache_mb: int = Field(
        1024,
        ge=1,
        title="Cache",
        description="Memory for the amplitudes of the patterns. Where they do not fit, every pass computes them again.",
        json_schema_extra=marks(unit="MiB"),
    )
    seed: int = Field(0, ge=0, title="Seed", description="Random seed of the order of the patterns.")
