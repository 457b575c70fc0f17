"""How scan files are read."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from ptychopinn.config._base import Config


class Measurement(StrEnum):
    """What a pattern's numbers are; nothing in this software guesses it again after reading."""

    COUNTS = "counts"  # expected photons, Poisson distributed
    AMPLITUDE = "amplitude"  # square root of counts or of a normalised intensity


class ReadOptions(Config):
    """What the caller says about a scan file that does not say enough of itself."""

    measurement: Measurement | None = Field(
        None, description="What the numbers of the patterns are; overrides the file (default: as the file says)."
    )
    nphotons: float | None = Field(
        None, gt=0, description="Mean photons a pattern; overrides the file (default: as the file says)."
    )
    fftshift: bool = Field(
        False, description="The patterns have DC in the corner: move it to the centre of the array, in memory."
    )
