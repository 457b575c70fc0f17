"""Options for reading scan files."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from ptychopinn.config._base import Config


class Measurement(StrEnum):
    """Meaning of the numbers of a pattern. It is decided once, on reading."""

    COUNTS = "counts"  # expected photons, Poisson distributed
    AMPLITUDE = "amplitude"  # square root of counts or of a normalised intensity


class ReadOptions(Config):
    """What the caller says about a scan file; it overrides the file."""

    measurement: Measurement | None = Field(
        None, description="Meaning of the numbers of the patterns; overrides the file (default: as the file says)."
    )
    nphotons: float | None = Field(
        None, gt=0, description="Mean photons per pattern; overrides the file (default: as the file says)."
    )
    fftshift: bool = Field(False, description="The patterns have DC in the corner; move it to the centre on reading.")
