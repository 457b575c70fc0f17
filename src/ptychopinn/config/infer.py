"""Settings of a reconstruction with a trained network."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import Field

from ptychopinn.config._base import Config
from ptychopinn.config.build import build
from ptychopinn.config.settings import marks


class Synchronise(StrEnum):
    """Whether the phases of the patches are aligned from their overlaps before stitching."""

    AUTO = "auto"  # if and as far as it lowers the forward residual
    ON = "on"
    OFF = "off"


class ProbeSource(StrEnum):
    """The probe that enters the network and weights the patches."""

    AUTO = "auto"  # that of the model, unless that of the scan explains the patterns far better
    MODEL = "model"  # that of the training, refined
    SCAN = "scan"  # the probeGuess of the scan


class Likelihood(StrEnum):
    """The likelihood that refinement maximises."""

    AMPLITUDE = "amplitude"  # of amplitudes with equal noise on each
    POISSON = "poisson"  # of counts; dark pixels weigh less


class Background(StrEnum):
    """Counts that every pattern has beside its light."""

    SMOOTH = "smooth"  # over a twentieth of the detector's width: scattering by air, leaking light
    FREE = "free"  # pixel by pixel


_BATCH, _DEVICE_BATCH = 256, 4096
_STREAM_BATCH = 64  # more would come late
_STREAM_PASSES = 0  # a stream is for looking on; passes follow with `infer` once the scan is complete
# In patterns. Larger batches need memory and save no time on a CPU; a GPU needs large ones.
_BATCH_PIXELS, _DEVICE_BATCH_PIXELS = 1 << 21, 1 << 25


class PredictionOptions(Config):
    """How the network's patches become an object."""

    title: ClassVar[str] = "reconstruction: prediction"

    inference_batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        title="Batch size of inference",
        description="Patterns that the network predicts at a time. The default is less for patterns of more than 64 x "
        f"64 pixels, and {_STREAM_BATCH} in a stream.",
        json_schema_extra=marks(
            unit="patterns",
            unset=f"{_BATCH} (CPU), {_DEVICE_BATCH} (GPU)",
        ),
    )
    probe_source: ProbeSource = Field(
        ProbeSource.AUTO,
        title="Probe to use",
        description="Whose probe to use: that of the model, which its training refined, or that of the scan. auto is "
        "that of the model, unless that of the scan explains the patterns far better.",
    )
    synchronise: Synchronise = Field(
        Synchronise.AUTO,
        title="Synchronise phases",
        description="Solve for one global phase per patch from the overlaps before patches are averaged. auto keeps "
        "the result only as far as it explains the patterns better.",
    )
    memory_budget_mb: int = Field(
        1024,
        ge=1,
        title="Memory for patches",
        description="Memory for patches that wait to be stitched, and for what refinement keeps between its passes. "
        "Patches beyond it wait in a temporary file.",
        json_schema_extra=marks(unit="MiB"),
    )
    predict_overlap: float | None = Field(
        None,
        ge=0,
        lt=1,
        title="Overlap of predictions",
        description="Let the network predict only so many patterns that neighbouring probes overlap by this share of "
        "their width. The passes of refinement use all patterns.",
        json_schema_extra=marks(needs="refine", unset="predict every pattern"),
    )


_Passes = Annotated[
    int,
    Field(
        ge=0,
        le=10_000,
        title="Refinement passes",
        description="Passes of an iterative solver that start from the network's prediction. Each uses every pattern "
        "once and is kept only if it explains the patterns better. 0 is the network alone. The default of "
        f"streams is {_STREAM_PASSES}.",
        json_schema_extra=marks(basic=True, unit="passes"),
    ),
]


class RefinementOptions(Config):
    """Passes of physics that follow the prediction."""

    title: ClassVar[str] = "reconstruction: refinement"

    refine: _Passes = 2
    refine_probe: bool = Field(
        False,
        title="Refine the probe",
        description="Let the refinement passes correct the probe too, where it is only a guess.",
        json_schema_extra=marks(basic=True, needs="refine"),
    )
    refine_modes: int | None = Field(
        None,
        ge=2,
        le=8,
        title="Most probe modes",
        description="Add incoherent modes to the probe, up to this number, as long as patterns that are held out are "
        "explained better.",
        json_schema_extra=marks(needs="refine_probe", unset="those of the probe", unit="modes"),
    )
    refine_probe_variation: int = Field(
        0,
        ge=0,
        le=8,
        title="Modes of a varying probe",
        description="Let the probe vary over the scan by so many modes with a weight for each pattern (orthogonal "
        "probe relaxation), where the beam drifts or shakes. 0 is one probe for all patterns.",
        json_schema_extra=marks(needs="refine_probe", unit="modes"),
    )
    refine_positions: bool = Field(
        False,
        title="Refine the positions",
        description="Correct the scan positions too, where the stage is not exact: from how the network's patches of "
        "neighbours lie on each other, then in the refinement passes.",
        json_schema_extra=marks(basic=True, needs="refine"),
    )
    refine_flux: bool = Field(
        False,
        title="Fit the flux",
        description="Let the refinement passes fit the light of every pattern too, where the beam flickers.",
        json_schema_extra=marks(needs="refine"),
    )
    refine_background: Background | None = Field(
        None,
        title="Fit a background",
        description="Let the refinement passes fit a background that is the same in every pattern, smooth over the "
        "detector or free in every pixel.",
        json_schema_extra=marks(needs="refine", unset="none"),
    )
    refine_fly: tuple[float, float] | None = Field(
        None,
        title="Motion in an exposure",
        description="Distance (y, x) that the stage moves while a pattern is measured, in object pixels: 0,4 where it "
        "flies over 4 pixels along x. Its sign has no effect.",
        json_schema_extra=marks(needs="refine", unset="the stage stands still", unit="px"),
    )
    refine_likelihood: Likelihood | None = Field(
        None,
        title="Noise model",
        description="What the refinement passes maximise: the likelihood of amplitudes, or of Poisson counts. The "
        "default is poisson where photons are few, else amplitude.",
        json_schema_extra=marks(needs="refine", unset="by the number of photons"),
    )
    uncertainty: bool = Field(
        False,
        title="Standard errors",
        description="Also estimate the standard error of phase and amplitude at every pixel, and the resolution, from "
        "passes over two halves of the patterns.",
        json_schema_extra=marks(needs="refine"),
    )


class InferConfig(RefinementOptions, PredictionOptions):
    """Inference and stitching: the options of both groups above, flat, as flags and files have them."""

    title: ClassVar[str] = ""

    def batch_size(self, pixels: int, *, on_host: bool = True) -> int:
        """Patches per batch, for patterns of ``pixels`` pixels per patch, on the host or on a device."""
        if self.inference_batch_size is not None:
            return self.inference_batch_size
        most, most_pixels = (_BATCH, _BATCH_PIXELS) if on_host else (_DEVICE_BATCH, _DEVICE_BATCH_PIXELS)
        return max(min(most, most_pixels // pixels), 1)


class StreamConfig(InferConfig):
    """Inference of a stream: `InferConfig` with the defaults of streams."""

    refine: _Passes = _STREAM_PASSES

    @classmethod
    def of(cls, config: InferConfig | None) -> Self:
        """The given fields of a configuration, with the defaults of streams for the others.

        Raises
        ------
        ConfigError
            If a field that needs passes is given without ``refine``.
        """
        return build(cls, {} if config is None else config.model_dump(exclude_unset=True))

    @property
    def stream_batch_size(self) -> int:
        """Maximum number of streamed patterns that are predicted together."""
        return _STREAM_BATCH if self.inference_batch_size is None else self.inference_batch_size
