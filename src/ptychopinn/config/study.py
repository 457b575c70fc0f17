"""Grids of simulated scans on which reconstructors are compared."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config
from ptychopinn.config.comparison import CandidateConfig

_Photons = Annotated[float, Field(gt=0, le=4e9)]
_Overlap = Annotated[float, Field(ge=0, lt=1)]
_Count = Annotated[int, Field(ge=2)]
_GridSize = Annotated[int, Field(ge=1, le=5)]
_Seed = Annotated[int, Field(ge=0)]


class StudyConfig(Config):
    """The axes of a study; a cell is one value of each."""

    legs: tuple[CandidateConfig, ...] = Field(
        min_length=1, description="Reconstructors, as 'compare' names them, or mappings with settings of their own."
    )
    photons: tuple[_Photons, ...] = Field((1e6,), min_length=1, description="Mean photons a pattern.")
    overlap: tuple[_Overlap, ...] = Field(
        (0.7,), min_length=1, description="1 - step / full width at half maximum of the probe."
    )
    train_patterns: tuple[_Count | None, ...] = Field(
        (None,), min_length=1, description="Training patterns, in the middle of the training part; null takes all."
    )
    gridsize: tuple[_GridSize | None, ...] = Field(
        (None,), min_length=1, description="gridsize of the networks; null is their default."
    )
    seeds: tuple[_Seed, ...] = Field((0,), min_length=1, description="Seeds of object, positions and noise.")
    repeats: int = Field(1, ge=1, description="Runs of every cell with other seeds of the reconstructor.")
    percentiles: tuple[float, float] = Field((25, 75), description="What is shown around the median.")
    metrics: tuple[str, ...] = Field(
        ("phase ssim", "amp ssim", "object nrmse"), min_length=1, description="What is drawn: quantity and metric."
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
