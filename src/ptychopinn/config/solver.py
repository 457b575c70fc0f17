"""Settings of the iterative solvers of the core."""

from __future__ import annotations

from pydantic import Field

from ptychopinn.config._base import Config


class SolverOptions(Config):
    """Options of `epie` and `rpie`."""

    passes: int = Field(100, ge=1, le=100_000, description="Passes over all patterns.")
    update_probe: bool = Field(False, description="Update the probe too.")
    follow_offset: bool = Field(
        True, description="Shift the probe's far field by the offset of the patterns before starting."
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Patterns per update (default: 1/32 of the scan, 8 to 32; more in long scans of small patterns).",
    )
    cache_mb: int = Field(
        1024, ge=1, description="MiB for cached amplitudes; if they do not fit, they are computed again in every pass."
    )
    seed: int = Field(0, ge=0, description="Seed of the order of the patterns.")
