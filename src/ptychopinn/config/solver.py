"""The iterative solvers of the core."""

from __future__ import annotations

from pydantic import Field

from ptychopinn.config._base import Config


class SolverOptions(Config):
    """Options of `epie` and `rpie`."""

    passes: int = Field(100, ge=1, le=100_000, description="Times every pattern is used.")
    update_probe: bool = Field(False, description="Let the solver change the probe too.")
    follow_offset: bool = Field(
        True, description="Put the offset of the patterns on the detector into the probe before it starts."
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Patterns that act at once (default: 1/32 of the scan, 8 to 32; more in long scans of small ones).",
    )
    cache_mb: int = Field(
        1024, ge=1, description="MiB for amplitudes; where they do not fit they are made anew in every pass."
    )
    seed: int = Field(0, ge=0, description="Order of the patterns.")
