"""How reconstructors are compared."""

from __future__ import annotations

from pydantic import Field

from ptychopinn.config._base import Config


class ComparisonConfig(Config):
    """Limits of a comparison, and what it is judged by."""

    baseline: str | None = Field(None, description="The leg that the others are told from (default: the first leg).")
    n_test_groups: int | None = Field(
        None,
        ge=1,
        description="Test on this many groups of patterns in the middle of the test scan; a group has gridsize^2 of "
        "them, 1 without gridsize.",
    )
    memory_mb: int | None = Field(
        None,
        ge=64,
        description="MiB of anonymous memory that a leg's processes may take "
        "(default: three quarters of what is free).",
    )
    leg_seconds: float | None = Field(None, gt=0, description="Seconds after which a leg is ended as failed.")
    split_frc: bool = Field(
        True,
        description="Also reconstruct the odd and the even patterns of the test scan each alone, for a resolution that "
        "needs no reference.",
    )
