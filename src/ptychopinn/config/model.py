"""The network: everything a saved model needs to be built again."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, field_validator, model_validator

from ptychopinn.config._base import Config

SUPPORTED_N = (32, 64, 128, 256)
_DEFAULT_GROUP_SIZE = 8


class ModelType(StrEnum):
    """How the network learns."""

    PINN = "pinn"  # from the measured counts, through the physics
    SUPERVISED = "supervised"  # from known object patches


class Architecture(StrEnum):
    """Which network."""

    FAST = "fast"  # one pass a pattern; overlap acts in the loss only


class AmplitudeActivation(StrEnum):
    """Maps a real number to an amplitude; every one gives 1 at 0."""

    BOUNDED = "bounded"  # 2.5 sigmoid-shaped: between 0 and 2.5
    SOFTPLUS = "softplus"  # positive, unbounded
    EXP = "exp"  # positive, unbounded, steep


class ModelConfig(Config):
    """Shape and kind of the network."""

    N: int = Field(64, description=f"Width of a diffraction pattern in pixels: one of {SUPPORTED_N}.")
    model_type: ModelType = Field(
        ModelType.PINN, description="pinn learns from the counts alone; supervised needs a known object."
    )
    architecture: Architecture = Field(Architecture.FAST, description="The network's architecture.")
    gridsize: int | None = Field(
        None, ge=1, le=5, description="A group has gridsize^2 patterns; another way to set group_size."
    )
    group_size: int | None = Field(
        None,
        ge=1,
        le=32,
        description="Patterns whose overlap acts together in the loss "
        f"(default gridsize^2 when that is given, else {_DEFAULT_GROUP_SIZE}).",
    )
    n_filters_scale: float = Field(1.0, gt=0, le=4, description="Multiplies the width of every layer.")
    iterations: int = Field(
        3, ge=1, le=8, description="Times the network compares its object with the pattern and corrects it."
    )
    amp_activation: AmplitudeActivation = Field(
        AmplitudeActivation.BOUNDED, description="Keeps the predicted amplitude positive."
    )
    probe_mask: bool = Field(False, description="Set the probe to zero outside the circle of diameter N.")
    gaussian_smoothing_sigma: float = Field(
        0.0, ge=0, le=10, description="Blur of the exit wave in the forward model, pixels; 0 is none."
    )

    @field_validator("N")
    @classmethod
    def _n_is_supported(cls, value: int) -> int:
        if value not in SUPPORTED_N:
            raise ValueError(f"N = {value} is not supported; use one of {SUPPORTED_N} (crop or pad the patterns)")
        return value

    @model_validator(mode="after")
    def _one_group_size(self) -> Self:
        if self.gridsize is not None and self.group_size is not None and self.group_size != self.gridsize**2:
            raise ValueError(
                f"gridsize {self.gridsize} means groups of {self.gridsize**2}, but group_size is {self.group_size}; "
                "give one of them"
            )
        return self

    @property
    def patterns_per_group(self) -> int:
        """The group size in force."""
        if self.group_size is not None:
            return self.group_size
        return self.gridsize**2 if self.gridsize is not None else _DEFAULT_GROUP_SIZE

    @property
    def patch_size(self) -> int:
        """Width of the reconstructed centre of a patch: N/2, the oversampling that phase retrieval needs."""
        return self.N // 2
