"""Settings of the network: everything that is needed to build a saved model again."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from ptychopinn.config._base import Config
from ptychopinn.config.settings import marks

SUPPORTED_N = (32, 64, 128, 256)


def _supported(value: int) -> int:
    if value not in SUPPORTED_N:
        raise ValueError(f"N = {value} is not supported; use one of {SUPPORTED_N} (crop or pad the patterns)")
    return value


PatternWidth: TypeAlias = Annotated[int, AfterValidator(_supported)]


class ModelType(StrEnum):
    """How the network learns."""

    PINN = "pinn"  # from the measured counts, through the physics
    SUPERVISED = "supervised"  # from known object patches


class Architecture(StrEnum):
    """The network's architecture."""

    FAST = "fast"  # an unrolled solver, one pattern at a time; overlap acts in the loss only
    CNN = "cnn"  # the published network: the patterns of a group are the channels of one image


class AmplitudeActivation(StrEnum):
    """Function from a real number to an amplitude; each gives 1 at 0."""

    BOUNDED = "bounded"  # 2.5 sigmoid-shaped: between 0 and 2.5
    SOFTPLUS = "softplus"  # positive, unbounded
    EXP = "exp"  # positive, unbounded, steep


_GROUP_SIZE = {Architecture.FAST: 8, Architecture.CNN: 4}
_WIDTH_SCALE = {Architecture.FAST: 0.25, Architecture.CNN: 2.0}
_ITERATIONS, _FINE_ITERATIONS = 8, 2


class ModelConfig(Config):
    """Shape and kind of the network."""

    title: ClassVar[str] = "network"

    N: PatternWidth = Field(
        64,
        title="Pattern width",
        description=f"Width of a diffraction pattern: {', '.join(map(str, SUPPORTED_N))}. A training takes that of the "
        "scan.",
        json_schema_extra=marks(unit="px"),
    )
    model_type: ModelType = Field(
        ModelType.PINN,
        title="Model type",
        description="pinn learns from the measured counts alone; supervised learns from a known object.",
        json_schema_extra=marks(basic=True),
    )
    architecture: Architecture = Field(
        Architecture.FAST,
        title="Network",
        description="fast is an unrolled solver and right for nearly every scan; cnn is the published network, which "
        "needs a much longer training.",
        json_schema_extra=marks(basic=True),
    )
    gridsize: int | None = Field(
        None,
        ge=1,
        le=5,
        title="Grid size",
        description="Groups have gridsize x gridsize patterns: another way to set the group size.",
    )
    group_size: int | None = Field(
        None,
        ge=1,
        le=32,
        title="Group size",
        description="Neighbouring patterns whose overlap acts together in the loss. A grid size sets it too.",
        json_schema_extra=marks(
            unit="patterns",
            unset=f"{_GROUP_SIZE[Architecture.FAST]} (fast), {_GROUP_SIZE[Architecture.CNN]} (cnn)",
        ),
    )
    n_filters_scale: float | None = Field(
        None,
        gt=0,
        le=4,
        title="Width of the network",
        description="Factor on the number of channels of every layer. A wider network is slower.",
        json_schema_extra=marks(
            unset=f"{_WIDTH_SCALE[Architecture.FAST]:g} (fast), {_WIDTH_SCALE[Architecture.CNN]:g} (cnn)"
        ),
    )
    iterations: int | None = Field(
        None,
        ge=1,
        le=16,
        title="Iterations of the network",
        description="How often the fast network compares its object with the pattern and corrects it.",
        json_schema_extra=marks(unset=f"{_ITERATIONS}"),
    )
    fine_iterations: int | None = Field(
        None,
        ge=1,
        le=16,
        title="Iterations at each finer resolution",
        description="How many of the iterations each resolution has, from the finest on; the coarsest has those that "
        "are left. More are slower, and better for probes whose far field fills the detector.",
        json_schema_extra=marks(unset=f"{_FINE_ITERATIONS}"),
    )
    amp_activation: AmplitudeActivation = Field(
        AmplitudeActivation.BOUNDED,
        title="Amplitude activation",
        description="Function that keeps the predicted amplitude positive; bounded keeps it below 2.5.",
    )
    pad_object: bool = Field(
        True,
        title="Central half of a patch",
        description="Reconstruct only the central half of each patch (N/2 x N/2) and take the object as 1 around it.",
    )
    probe_big: bool = Field(
        False,
        title="Coarse border of a patch",
        description="Let a few channels of the cnn network draw a coarse border around the central half.",
    )
    object_big: bool = Field(
        True,
        title="A patch per pattern",
        description="Predict a patch for every pattern of a group and average them where they overlap. Without it one "
        "patch has to explain the whole group.",
    )
    probe_mask: bool = Field(
        False, title="Mask the probe", description="Set the probe to zero outside the circle of diameter N."
    )
    gaussian_smoothing_sigma: float = Field(
        0.0,
        ge=0,
        le=10,
        title="Blur of the exit wave",
        description="Standard deviation of a blur of the exit wave in the forward model; 0 is no blur.",
        json_schema_extra=marks(unit="px"),
    )

    @model_validator(mode="after")
    def _one_group_size(self) -> Self:
        if self.gridsize is not None and self.group_size is not None and self.group_size != self.gridsize**2:
            raise ValueError(
                f"gridsize {self.gridsize} means groups of {self.gridsize**2}, but group_size is {self.group_size}; "
                "give one of them"
            )
        return self

    @model_validator(mode="after")
    def _fields_apply(self) -> Self:
        fast_only = {"iterations": self.iterations, "fine_iterations": self.fine_iterations}
        given = [name for name, value in fast_only.items() if value is not None]
        if self.architecture is Architecture.CNN and given:
            raise ValueError(f"{given[0]} belongs to architecture fast; leave it out with cnn")
        if self.probe_big and self.architecture is not Architecture.CNN:
            raise ValueError("probe_big belongs to architecture cnn; leave it out, or use pad_object = false")
        if self.probe_big and not self.pad_object:
            raise ValueError("probe_big draws the border of a patch, but without pad_object there is no border")
        return self

    @property
    def patterns_per_group(self) -> int:
        """The group size in force."""
        if self.group_size is not None:
            return self.group_size
        return self.gridsize**2 if self.gridsize is not None else _GROUP_SIZE[self.architecture]

    @property
    def patches_per_group(self) -> int:
        """Number of patches predicted per group: one per pattern, or only the anchor's."""
        return self.patterns_per_group if self.object_big else 1

    @property
    def patterns_per_patch(self) -> int:
        """Number of patterns from which one patch is predicted: 1, or a group if its patterns are channels."""
        return self.patterns_per_group if self.architecture is Architecture.CNN else 1

    @property
    def width_scale(self) -> float:
        """The factor in force on the width of the layers."""
        return _WIDTH_SCALE[self.architecture] if self.n_filters_scale is None else self.n_filters_scale

    @property
    def steps(self) -> int:
        """The iterations in force, of the fast network."""
        return _ITERATIONS if self.iterations is None else self.iterations

    @property
    def steps_a_resolution(self) -> int:
        """The iterations in force of every resolution but the coarsest, of the fast network."""
        return _FINE_ITERATIONS if self.fine_iterations is None else self.fine_iterations

    @property
    def patch_size(self) -> int:
        """Width of a reconstructed patch: N/2, the oversampling that phase retrieval needs, or N."""
        return self.N // 2 if self.pad_object and not self.probe_big else self.N
