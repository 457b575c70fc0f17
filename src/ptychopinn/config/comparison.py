"""Settings of a comparison."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config

NOT_SHARED = (
    "N",
    "model_type",
    "architecture",
)  # of the model: given by the scans or by a candidate's name, not common to all
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class CandidateConfig(Config):
    """A candidate of a comparison or study with its own settings. A plain word is its `name`."""

    name: str = Field(
        description="BACKEND-MODELTYPE, BACKEND-MODELTYPE-ARCHITECTURE or a solver; with `backend`, any name."
    )
    backend: str | None = Field(
        None, description="The backend of a network, or the solver (default: as the name says)."
    )
    model: dict[str, Any] = Field({}, description="Its own settings of the network.")
    train: dict[str, Any] = Field({}, description="Its own settings of the training.")
    infer: dict[str, Any] = Field({}, description="Its own settings of the inference.")
    execution: dict[str, Any] = Field({}, description="Its own options of the backend.")
    solver: dict[str, Any] = Field({}, description="Its own options of the solver.")

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
    """Candidates, limits and scores of a comparison."""

    legs: tuple[CandidateConfig, ...] = Field((), description="Candidates: names, or mappings with their own settings.")
    baseline: str | None = Field(
        None, description="Baseline candidate that the others are compared with (default: the first)."
    )
    n_test_groups: int | None = Field(
        None,
        ge=1,
        description="Test on this many groups in the middle of the test scan; a group has gridsize^2 patterns, 1 "
        "without gridsize.",
    )
    memory_mb: int | None = Field(
        None,
        ge=64,
        description="Limit in MiB on the anonymous memory of a candidate's processes "
        "(default: three quarters of the free memory).",
    )
    leg_seconds: float | None = Field(None, gt=0, description="Time limit of a candidate in seconds.")
    split_frc: bool = Field(
        True,
        description="Also reconstruct the odd and the even patterns of the test scan separately, for a resolution "
        "without a reference.",
    )
