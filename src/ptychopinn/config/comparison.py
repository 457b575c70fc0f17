"""Settings of a comparison."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config
from ptychopinn.config.settings import marks

# Settings of the network that scans and names of candidates decide: one for all candidates would contradict them.
NOT_SHARED = ("N", "model_type", "architecture")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class CandidateConfig(Config):
    """A candidate of a comparison or study with its own settings. A plain word is its `name`."""

    name: str = Field(
        description="BACKEND-MODELTYPE, BACKEND-MODELTYPE-ARCHITECTURE or a solver; with `backend`, any name."
    )
    backend: str | None = Field(
        None, description="The backend of a network, or the solver; without it the name says which."
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

    title: ClassVar[str] = "comparison"

    legs: tuple[CandidateConfig, ...] = Field(
        (),
        title="Candidates",
        description="Reconstructors to compare: names, or mappings with settings of their own.",
    )
    baseline: str | None = Field(
        None,
        title="Baseline",
        description="The candidate that the others are compared with.",
        json_schema_extra=marks(unset="the first one"),
    )
    n_test_groups: int | None = Field(
        None,
        ge=1,
        title="Test groups",
        description="Test on this many groups of patterns in the middle of the test scan. A group has gridsize^2 "
        "patterns, 1 without gridsize.",
        json_schema_extra=marks(unit="groups", unset="the whole scan"),
    )
    memory_mb: int | None = Field(
        None,
        ge=64,
        title="Memory limit",
        description="Memory that the processes of one candidate may take; one that takes more is ended as failed.",
        json_schema_extra=marks(unit="MiB", unset="three quarters of what is free"),
    )
    leg_seconds: float | None = Field(
        None,
        gt=0,
        title="Time limit of a candidate",
        description="A candidate that takes longer is ended as failed.",
        json_schema_extra=marks(unit="s", unset="no limit"),
    )
    split_frc: bool = Field(
        True,
        title="Resolution from two halves",
        description="Also reconstruct the odd and the even patterns of the test scan alone, for a resolution that "
        "needs no reference.",
    )
