"""Settings of a study."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from ptychopinn.config.comparison import CandidateConfig
from ptychopinn.config.settings import marks
from ptychopinn.config.workers import WorkerOptions

_Photons = Annotated[float, Field(gt=0, le=4e9)]
_Overlap = Annotated[float, Field(ge=0, lt=1)]
_Count = Annotated[int, Field(ge=2)]
_GridSize = Annotated[int, Field(ge=1, le=5)]
_Seed = Annotated[int, Field(ge=0)]


class StudyConfig(WorkerOptions):
    """Axes of a study. A cell has one value of each axis."""

    title: ClassVar[str] = "study"

    legs: tuple[CandidateConfig, ...] = Field(
        min_length=1,
        title="Candidates",
        description="Reconstructors to compare: names as 'compare' takes them, or mappings with settings of their own.",
        json_schema_extra=marks(unset="none: they must be given"),
    )
    photons: tuple[_Photons, ...] = Field(
        (1e6,), min_length=1, title="Photons per pattern", description="Mean numbers of photons in a pattern."
    )
    overlap: tuple[_Overlap, ...] = Field(
        (0.7,),
        min_length=1,
        title="Overlap",
        description="1 - step / full width at half maximum of the probe.",
    )
    train_patterns: tuple[_Count | None, ...] = Field(
        (None,),
        min_length=1,
        title="Training patterns",
        description="Numbers of training patterns, in the middle of the training part; null takes all.",
    )
    gridsize: tuple[_GridSize | None, ...] = Field(
        (None,), min_length=1, title="Grid size", description="gridsize of the networks; null is their default."
    )
    seeds: tuple[_Seed, ...] = Field(
        (0,), min_length=1, title="Seeds", description="Random seeds of object, positions and noise."
    )
    repeats: int = Field(
        1, ge=1, title="Repeats", description="Runs of every cell, each with another seed of the candidate."
    )
    percentiles: tuple[float, float] = Field(
        (25, 75), title="Percentiles", description="Range that is shown around the median."
    )
    metrics: tuple[str, ...] = Field(
        ("phase ssim", "amp ssim", "object nrmse"),
        min_length=1,
        title="Metrics",
        description="What is drawn: quantity and metric.",
    )

    workers: int | None = Field(
        None,
        ge=1,
        le=1024,
        title="Workers",
        description="Candidates that run at a time on this machine; with GPUs at most one for each. Where they run "
        "side by side, their durations and rates are no measure.",
        json_schema_extra=marks(basic=True, unset="one, on the whole machine"),
    )

    @model_validator(mode="after")
    def _values_make_sense(self) -> Self:
        for name in ("legs", "photons", "overlap", "train_patterns", "gridsize", "seeds", "metrics"):
            values = [value.name if isinstance(value, CandidateConfig) else value for value in getattr(self, name)]
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has a value twice: {', '.join(map(str, values))}")
        low, high = self.percentiles
        if not 0 <= low <= high <= 100:
            raise ValueError(f"percentiles are ({low:g}, {high:g}); give two between 0 and 100, the smaller one first")
        return self
