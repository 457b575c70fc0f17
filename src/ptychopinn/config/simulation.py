"""Settings of a simulated scan: object, probe, positions, dose, and what real scans have beside them."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config
from ptychopinn.config.model import SUPPORTED_N, PatternWidth
from ptychopinn.config.settings import marks

_STEP_PER_N = 7 / 64
_JITTER_PER_N = 2 / 64


class ObjectKind(StrEnum):
    """Kind of a simulated object."""

    TEXTURED = "textured"  # smoothed noise of two widths and thin lines
    DISCS_BARS = "discs_bars"  # overlapping discs and bars
    POWER_LAW = "power_law"  # noise with a power-law spectrum, sometimes folded into ridges
    CELLS = "cells"  # Voronoi cells, filled or outlined
    STAR = "star"  # spokes and rings around a few centres
    CURVES = "curves"  # smooth strokes of several widths on a slow background
    GRATINGS = "gratings"  # pieces of gratings of several periods
    POROUS = "porous"  # noise cut at levels: islands, labyrinths
    MIXTURE = "mixture"  # sums and masks of the kinds above, textured left out
    LETTER = "letter"  # one F, which differs from all its mirror images and rotations


class ProbeKind(StrEnum):
    """Kind of a simulated probe."""

    DISC = "disc"  # soft-edged disc with a mild curvature
    ANNULAR = "annular"  # soft-edged ring
    GAUSSIAN = "gaussian"
    DEFOCUSED = "defocused"  # out of focus behind an aperture: fringes


class ScanKind(StrEnum):
    """Arrangement of the positions."""

    RASTER = "raster"
    JITTERED = "jittered"  # raster, every position moved at random
    SPIRAL = "spiral"  # Fermat spiral with the density of the raster


class SimulationConfig(Config):
    """A simulated scan. The defaults are those of the benchmarks, whose two scans differ in the seed."""

    title: ClassVar[str] = "simulation"

    N: PatternWidth = Field(
        64,
        title="Pattern width",
        description=f"Width of a diffraction pattern: {', '.join(map(str, SUPPORTED_N))}.",
        json_schema_extra=marks(basic=True, unit="px"),
    )
    seed: int = Field(
        0,
        ge=0,
        title="Seed",
        description="Random seed of object, positions and noise.",
        json_schema_extra=marks(basic=True),
    )
    # object
    object_kind: ObjectKind = Field(
        ObjectKind.TEXTURED, title="Object", description="Kind of object.", json_schema_extra=marks(basic=True)
    )
    object_shape: tuple[int, int] | None = Field(
        None,
        title="Size of the object",
        description="Height and width of the object in pixels.",
        json_schema_extra=marks(unset="what the scan covers, and a margin"),
    )
    amplitude: tuple[float, float] = Field(
        (0.4, 1.0), title="Range of the amplitude", description="Lowest and highest amplitude of the object."
    )
    phase_rad: tuple[float, float] = Field(
        (-1.0, 1.0), title="Range of the phase", description="Lowest and highest phase of the object in radians."
    )
    # probe
    probe_kind: ProbeKind = Field(
        ProbeKind.DISC, title="Probe", description="Kind of probe.", json_schema_extra=marks(basic=True)
    )
    probe_modes: int = Field(
        1, ge=1, le=10, title="Probe modes", description="Number of mutually incoherent modes of the probe."
    )
    # positions
    scan_kind: ScanKind = Field(
        ScanKind.JITTERED,
        title="Scan",
        description="Arrangement of the positions.",
        json_schema_extra=marks(basic=True),
    )
    rows: int = Field(
        45,
        ge=1,
        title="Rows",
        description="Rows of positions. A spiral has rows * cols positions.",
        json_schema_extra=marks(basic=True),
    )
    cols: int = Field(
        45, ge=1, title="Columns", description="Columns of positions.", json_schema_extra=marks(basic=True)
    )
    step_px: float | None = Field(
        None,
        gt=0,
        title="Step",
        description="Distance between neighbouring positions.",
        json_schema_extra=marks(unit="px", unset="7 px at N = 64, in proportion to N"),
    )
    overlap: float | None = Field(
        None,
        ge=0,
        lt=1,
        title="Overlap",
        description="1 - step / full width at half maximum of the probe: another way to set the step.",
        json_schema_extra=marks(basic=True, unset="as the step makes it"),
    )
    jitter_px: float | None = Field(
        None,
        ge=0,
        title="Jitter",
        description="Largest random shift of the positions of a jittered scan, in y and in x.",
        json_schema_extra=marks(unit="px", unset="2 px at N = 64, in proportion to N"),
    )
    # detector
    nphotons: float = Field(
        1e6,
        gt=0,
        le=4e9,
        title="Photons per pattern",
        description="Mean number of photons in a pattern where the object is 1: the energy of the probe.",
        json_schema_extra=marks(basic=True),
    )
    detector_offset_px: tuple[float, float] | None = Field(
        None,
        title="Detector offset",
        description="Shift (y, x) of the patterns on the detector in pixels; the probe in the file does not have it.",
        json_schema_extra=marks(unset="no shift"),
    )
    bad_pixel_fraction: float = Field(
        0.0, ge=0, le=0.5, title="Bad pixels", description="Share of the detector's pixels that measure nothing."
    )
    background_share: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Background",
        description="Smooth background that every pattern has, as a share of the mean counts of a pattern.",
    )
    saturation_counts: int | None = Field(
        None,
        ge=1,
        le=2**32 - 1,
        title="Saturation",
        description="Counts of a pixel above this are recorded as this.",
        json_schema_extra=marks(unit="counts", unset="none"),
    )
    # beam and stage
    flux_deviation: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Flicker of the beam",
        description="Relative standard deviation of the flux from pattern to pattern (log-normal, mean 1).",
    )
    position_error_px: float = Field(
        0.0,
        ge=0,
        le=1000,
        title="Position error",
        description="Standard deviation, in y and in x, of the recorded positions around the true ones.",
        json_schema_extra=marks(unit="px"),
    )
    position_scale_error: float = Field(
        0.0,
        ge=-0.5,
        le=0.5,
        title="Scale error of positions",
        description="Recorded positions are the true ones scaled about their mean by 1 + this.",
    )
    drift_px: float = Field(
        0.0,
        ge=0,
        le=1000,
        title="Drift of the stage",
        description="How far the stage is at the end of the scan from where it is recorded, in a random direction; it "
        "grows with the square of the time.",
        json_schema_extra=marks(unit="px"),
    )
    probe_variation_rad: float = Field(
        0.0,
        ge=0,
        le=3,
        title="Varying probe",
        description="Root mean square phase that a changing defocus and astigmatism put into the beam. The defocus "
        "drifts over the scan, the astigmatism swings. The probe in the file is without them.",
        json_schema_extra=marks(unit="rad"),
    )
    fly_px: float = Field(
        0.0,
        ge=0,
        le=16,
        title="Motion in an exposure",
        description="Distance in x that the stage moves within each exposure of a raster or jittered scan.",
        json_schema_extra=marks(unit="px"),
    )
    write_patches: bool = Field(
        False,
        title="Write true patches",
        description="Write the true patch of every pattern too, which takes n * N * N * 8 bytes.",
    )

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.step_px is not None and self.overlap is not None:
            raise ValueError(f"step_px {self.step_px} and overlap {self.overlap} both set the step; give one of them")
        if self.jitter_px is not None and self.jitter_px > 0 and self.scan_kind is not ScanKind.JITTERED:
            raise ValueError(
                f"jitter_px {self.jitter_px} has no effect on a {self.scan_kind} scan; use scan_kind jittered"
            )
        if self.fly_px > 0 and self.scan_kind is ScanKind.SPIRAL:
            raise ValueError(f"fly_px {self.fly_px} needs scan lines; use scan_kind raster or jittered")
        for name, (low, high) in (("amplitude", self.amplitude), ("phase_rad", self.phase_rad)):
            if low > high:
                raise ValueError(f"{name} is ({low}, {high}); give the smaller bound first")
        if self.amplitude[0] < 0 or self.amplitude[1] == 0:
            raise ValueError(f"amplitude is {self.amplitude}; it must not be negative or all 0")
        if self.object_shape is not None and min(self.object_shape) < 1:
            raise ValueError(f"object_shape is {self.object_shape}; it must be positive")
        return self

    @property
    def default_step_px(self) -> float:
        """The step when neither step_px nor overlap is given."""
        return _STEP_PER_N * self.N

    @property
    def effective_jitter_px(self) -> float:
        """The jitter in force: 0 unless the scan is jittered."""
        if self.scan_kind is not ScanKind.JITTERED:
            return 0.0
        return _JITTER_PER_N * self.N if self.jitter_px is None else self.jitter_px
