"""Settings of a reconstruction with a trained network."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config


class Synchronise(StrEnum):
    """Whether the phases of the patches are aligned from their overlaps before stitching."""

    AUTO = "auto"  # if and as far as it lowers the forward residual
    ON = "on"
    OFF = "off"


class ProbeSource(StrEnum):
    """The probe that enters the network and weights the patches."""

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
# In patterns. Larger batches need memory and save no time on a CPU; a GPU needs large ones.
_BATCH_PIXELS, _DEVICE_BATCH_PIXELS = 1 << 21, 1 << 25


class InferConfig(Config):
    """Inference and stitching."""

    inference_batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description=(
            f"Patterns per batch (default: {_BATCH}, on a GPU {_DEVICE_BATCH}, fewer if they are larger than 64 x 64; "
            f"{_STREAM_BATCH} in a stream)."
        ),
    )
    probe_source: ProbeSource = Field(ProbeSource.MODEL, description="Use the probe of the model or that of the scan.")
    synchronise: Synchronise = Field(
        Synchronise.AUTO,
        description="Align the phases of the patches by their overlaps: on, off, or auto (if the residual falls).",
    )
    memory_budget_mb: int = Field(
        1024,
        ge=1,
        description=(
            "Memory in MiB for patches until their phases are known (more go to a temporary file), and for what refine "
            "keeps between passes."
        ),
    )
    predict_overlap: float | None = Field(
        None,
        ge=0,
        lt=1,
        description=(
            "Run the network only on a subset of patterns that still overlap by this fraction of the probe's width; "
            "refine uses all patterns (default: predict from every pattern)."
        ),
    )
    refine: int = Field(0, ge=0, le=10_000, description="Refinement passes after the prediction. 0: none.")
    refine_probe: bool = Field(False, description="Refine the probe too.")
    refine_positions: bool = Field(False, description="Refine the scan positions too.")
    refine_flux: bool = Field(False, description="Fit the light of every pattern too.")
    refine_background: Background | None = Field(
        None,
        description="Also fit counts that every pattern has beside its light: smooth, or free in every pixel "
        "(default: none).",
    )
    refine_likelihood: Likelihood | None = Field(
        None,
        description=(
            "Likelihood that refine maximises: of the amplitudes, or of Poisson counts (default: Poisson if photons "
            "are few, else amplitudes)."
        ),
    )

    @model_validator(mode="after")
    def _refinement(self) -> Self:
        given = {
            "predict_overlap": self.predict_overlap is not None,
            "refine_probe": self.refine_probe,
            "refine_positions": self.refine_positions,
            "refine_flux": self.refine_flux,
            "refine_background": self.refine_background is not None,
            "refine_likelihood": self.refine_likelihood is not None,
        }
        if self.refine == 0 and (idle := [name for name, is_set in given.items() if is_set]):
            raise ValueError(f"{' and '.join(idle)} has no effect without refine; set both")
        return self

    @property
    def stream_batch_size(self) -> int:
        """Maximum number of streamed patterns that are predicted together."""
        return _STREAM_BATCH if self.inference_batch_size is None else self.inference_batch_size

    def batch_size(self, pixels: int, *, on_host: bool = True) -> int:
        """Patches per batch, for patterns of ``pixels`` pixels per patch, on the host or on a device."""
        if self.inference_batch_size is not None:
            return self.inference_batch_size
        most, most_pixels = (_BATCH, _BATCH_PIXELS) if on_host else (_DEVICE_BATCH, _DEVICE_BATCH_PIXELS)
        return max(min(most, most_pixels // pixels), 1)
