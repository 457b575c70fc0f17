"""Options for reading scan files."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from ptychopinn.config._base import Config
from ptychopinn.config.settings import marks


class Measurement(StrEnum):
    """Meaning of the numbers of a pattern. It is decided once, on reading."""

    COUNTS = "counts"  # expected photons, Poisson distributed
    AMPLITUDE = "amplitude"  # square root of counts or of a normalised intensity


class ReadOptions(Config):
    """What the caller says about a scan file; it overrides the file."""

    title: ClassVar[str] = "reading of scans"

    measurement: Measurement | None = Field(
        None,
        title="Measurement",
        description="Take the numbers of the patterns as counts or as amplitudes, whatever the file says.",
        json_schema_extra=marks(unset="as the file says"),
    )
    nphotons: float | None = Field(
        None,
        gt=0,
        title="Photons per pattern",
        description="Mean number of photons in a pattern, whatever the file says.",
        json_schema_extra=marks(unset="as the file says"),
    )
    probe: str | None = Field(
        None,
        title="Probe to make",
        description="A probe for a scan without one, or instead of its own: a FILE with one, or mean (from the mean "
        "pattern), aperture:diameter=, gaussian:fwhm=, zone-plate:diameter=,outer_width=,stop=, each with defocus=. "
        "Lengths are metres, or object pixels with px.",
        json_schema_extra=marks(unset="that of the scan"),
    )
    reader: str | None = Field(
        None,
        title="Reader",
        description="Read the file with this reader, whatever else knows it; `ptychopinn plugins` lists their names.",
        json_schema_extra=marks(unset="the first that knows the file"),
    )
    saturation_counts: float | None = Field(
        None,
        gt=0,
        title="Saturation",
        description="Counts that the file has where a pixel is saturated, whatever it says. Refinement takes them as "
        "lower bounds.",
        json_schema_extra=marks(unit="counts", unset="as the file says, or the largest of its integers"),
    )
    fftshift: bool = Field(
        False,
        title="Zero frequency in the corner",
        description="The patterns have the zero frequency in their corner: move it to the centre, in memory.",
    )
