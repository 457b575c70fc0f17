"""How a scan is reconstructed with a trained network."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config


class Synchronise(StrEnum):
    """Whether one phase a patch is solved from the overlaps before stitching."""

    AUTO = "auto"  # as far as it lowers the forward residual
    ON = "on"
    OFF = "off"


class ProbeSource(StrEnum):
    """Whose probe weights the patches and enters the network."""

    MODEL = "model"  # the one the model was trained with, as refined
    SCAN = "scan"  # the probeGuess of the scan


class Likelihood(StrEnum):
    """What refinement makes large."""

    AMPLITUDE = "amplitude"  # of amplitudes with equal noise on each
    POISSON = "poisson"  # of counts; dark pixels weigh less


class Background(StrEnum):
    """Counts that every pattern has beside its light."""

    SMOOTH = "smooth"  # over a twentieth of the detector's width: scattering by air, leaking light
    FREE = "free"  # pixel by pixel


_BATCH, _DEVICE_BATCH = 256, 4096
_STREAM_BATCH = 64  # more would come late
# Of patterns: what is computed of more takes memory and saves no time. A device wants large batches.
_BATCH_PIXELS, _DEVICE_BATCH_PIXELS = 1 << 21, 1 << 25


class InferConfig(Config):
    """Inference and stitching."""

    inference_batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description=(
            f"Patterns predicted at a time (default: {_BATCH}, on a GPU {_DEVICE_BATCH}, fewer where they are larger "
            f"than 64 x 64; {_STREAM_BATCH} in a stream)."
        ),
    )
    probe_source: ProbeSource = Field(ProbeSource.MODEL, description="Take the probe from the model or from the scan.")
    synchronise: Synchronise = Field(
        Synchronise.AUTO, description="Solve one phase a patch from the overlaps: on, off, or as the residual decides."
    )
    memory_budget_mb: int = Field(
        1024,
        ge=1,
        description=(
            "MiB for patches that wait for their phases, which beyond it wait in a scratch file, and for what refine "
            "keeps between passes."
        ),
    )
    predict_overlap: float | None = Field(
        None,
        ge=0,
        lt=1,
        description=(
            "Predict from just so many patterns that they overlap by about this share of the probe's width, and leave "
            "the others to the passes of refine (default: predict from every pattern)."
        ),
    )
    refine: int = Field(
        0, ge=0, le=10_000, description="Passes of the solver from the prediction; 0 leaves the prediction as it is."
    )
    refine_probe: bool = Field(False, description="Refine the probe too, in the passes of refine.")
    refine_positions: bool = Field(False, description="Refine the scan positions too, in the passes of refine.")
    refine_flux: bool = Field(False, description="Fit the light of every pattern too, in the passes of refine.")
    refine_background: Background | None = Field(
        None,
        description=(
            "Fit counts that every pattern has beside its light, in the passes of refine: smooth, or free in every "
            "pixel (default: none)."
        ),
    )
    refine_likelihood: Likelihood | None = Field(
        None,
        description=(
            "Likelihood that refine follows: of amplitudes, or of Poisson counts (default: of Poisson counts where "
            "photons are few, else of amplitudes)."
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
        """Patterns of a stream that wait for each other at most before they are predicted."""
        return _STREAM_BATCH if self.inference_batch_size is None else self.inference_batch_size

    def batch_size(self, pixels: int, *, on_host: bool = True) -> int:
        """Patches to predict at a time, each from patterns of so many pixels in all, on the host or on a device."""
        if self.inference_batch_size is not None:
            return self.inference_batch_size
        most, most_pixels = (_BATCH, _BATCH_PIXELS) if on_host else (_DEVICE_BATCH, _DEVICE_BATCH_PIXELS)
        return max(min(most, most_pixels // pixels), 1)
