"""What ``convert`` does to a scan, in the order of the fields."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ptychopinn.config._base import Config
from ptychopinn.config.settings import marks


class ConversionOptions(Config):
    """Steps of a conversion. Without any, a file is read, checked and written canonically."""

    title: ClassVar[str] = "conversion"

    positions: str | None = Field(
        None,
        title="Positions",
        description="A file with the positions, two columns y x of text, or an NPZ, NPY or HDF5 file with them.",
        json_schema_extra=marks(unset="those of the scan"),
    )
    position_unit: Literal["px", "m", "mm", "um", "nm", "A"] | None = Field(
        None,
        title="Unit of positions",
        description="What the numbers of the positions are, whatever the file says.",
        json_schema_extra=marks(unset="as the file says"),
    )
    swap_axes: bool = Field(False, title="Exchange axes", description="Exchange y and x of the positions.")
    negate_y: bool = Field(False, title="Negate y", description="Negate y of the positions.")
    negate_x: bool = Field(False, title="Negate x", description="Negate x of the positions.")
    scale_positions: tuple[float, ...] | None = Field(
        None,
        title="Scale of positions",
        description="Multiply the positions by a factor, or by one for y and one for x.",
    )
    offset_positions: tuple[float, float] | None = Field(
        None,
        title="Offset of positions",
        description="Add y,x to the positions, in their unit.",
    )
    roll_positions: int = Field(
        0, title="Positions later in the list", description="Give pattern j the position of pattern j minus this."
    )
    pixel_size: float | None = Field(
        None, gt=0, title="Object pixel", description="Size of an object pixel.", json_schema_extra=marks(unit="m")
    )
    energy: float | None = Field(
        None, gt=0, title="Photon energy", description="Photon energy.", json_schema_extra=marks(unit="eV")
    )
    distance: float | None = Field(
        None, gt=0, title="Distance", description="From sample to detector.", json_schema_extra=marks(unit="m")
    )
    detector_pixel: float | None = Field(
        None, gt=0, title="Detector pixel", description="Size of a detector pixel.", json_schema_extra=marks(unit="m")
    )
    transpose: bool = Field(False, title="Transpose patterns", description="Exchange y and x of the patterns.")
    flip_y: bool = Field(False, title="Reverse y of patterns", description="Reverse the patterns along y about DC.")
    flip_x: bool = Field(False, title="Reverse x of patterns", description="Reverse the patterns along x about DC.")
    rotate: int = Field(
        0, ge=-3, le=3, title="Rotate patterns", description="Rotate the patterns by quarter turns, counter-clockwise."
    )
    shift: tuple[int, int] | None = Field(
        None, title="Shift patterns", description="Move the patterns by y,x whole pixels, so that DC is in the centre."
    )
    turn_probe: bool = Field(
        True,
        title="Turn the probe too",
        description="Turn the probe with the patterns; --no-turn-probe leaves it as it is.",
    )
    conjugate_probe: bool = Field(
        False, title="Conjugate the probe", description="Take the complex conjugate of the probe."
    )
    probe_from_corner: bool = Field(
        False, title="Probe in the corner", description="Move the middle of the probe from the corner to the centre."
    )
    mask: str | None = Field(
        None,
        title="Mask",
        description="A file with bad pixels (1 is bad), which are added, one mask or one a pattern: NPY, NPZ or HDF5 "
        "with bad_pixels or mask.",
    )
    mask_above: float | None = Field(
        None,
        gt=0,
        title="Mask above",
        description="Pixels that exceed these counts in any pattern become bad, and those with negative or invalid "
        "values.",
    )
    background: str | None = Field(
        None,
        title="Background",
        description="Counts a pixel to subtract: a number, or a file with an array of them. Negative counts become 0.",
    )
    region: tuple[float, float, float, float] | None = Field(
        None, title="Region", description="Only patterns with positions in y0,y1,x0,x1, in their unit."
    )
    frames: str | None = Field(
        None,
        title="Patterns",
        description="Only these patterns: numbers and ranges from 0 such as 0-99,120, or a text file of them.",
    )
    stride: int = Field(1, ge=1, title="Every so many", description="Only every so manieth pattern.")
    drop_outliers: bool = Field(
        False,
        title="Drop outliers",
        description="Leave out patterns whose position is lost, or whose light is far off the others.",
    )
    bin: int = Field(1, ge=1, title="Binning", description="Sum blocks of so many detector pixels squared.")
    resize: int | None = Field(
        None,
        ge=1,
        title="Crop or pad to",
        description="Crop or pad the patterns to this width; padded pixels are bad.",
        json_schema_extra=marks(unit="px", unset="only to a width that networks take"),
    )
