"""How reconstructors are compared."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config

NOT_SHARED = (
    "N",
    "model_type",
    "architecture",
)  # settings of the network that scans or candidates say, not one for all candidates
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class CandidateConfig(Config):
    """A reconstructor of a comparison or study, and what is set for it alone; a word stands for its `name`."""

    name: str = Field(
        description="BACKEND-MODELTYPE, BACKEND-MODELTYPE-ARCHITECTURE or a solver; any name with `backend`."
    )
    backend: str | None = Field(
        None, description="The backend of a network, or the solver (default: as the name says)."
    )
    model: dict[str, Any] = Field({}, description="Settings of its network that differ from those of the others.")
    train: dict[str, Any] = Field({}, description="Settings of its training that differ.")
    infer: dict[str, Any] = Field({}, description="Settings of its inference that differ.")
    execution: dict[str, Any] = Field({}, description="Options of its backend that differ.")
    solver: dict[str, Any] = Field({}, description="Options of its solver that differ.")

    @model_validator(mode="before")
    @classmethod
    def _read_word(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _name_is_one_of_a_folder(self) -> Self:
        if self.backend is not None and not _NAME.fullmatch(self.name):
            raise ValueError(f"the name {self.name!r:.80} is not made of letters, digits and . _ + - inside")
        return self


class ComparisonConfig(Config):
    """What is compared, limits, and what it is judged by."""

    legs: tuple[CandidateConfig, ...] = Field(
        (), description="Reconstructors: names, or mappings with settings of their own."
    )
    baseline: str | None = Field(
        None, description="The candidate that the others are told from (default: the first candidate)."
    )
    n_test_groups: int | None = Field(
        None,
        ge=1,
        description="Test on this many groups of patterns in the middle of the test scan; a group has gridsize^2 of "
        "them, 1 without gridsize.",
    )
    memory_mb: int | None = Field(
        None,
        ge=64,
        description="MiB of anonymous memory that a candidate's processes may take "
        "(default: three quarters of what is free).",
    )
    leg_seconds: float | None = Field(None, gt=0, description="Seconds after which a candidate is ended as failed.")
    split_frc: bool = Field(
        True,
        description="Also reconstruct the odd and the even patterns of the test scan each alone, for a resolution that "
        "needs no reference.",
    )
