"""Settings of a simulated scan: object, probe, positions, dose."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config
from ptychopinn.config.model import SUPPORTED_N

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

    N: int = Field(64, description=f"Width of a diffraction pattern in pixels: one of {SUPPORTED_N}.")
    seed: int = Field(0, ge=0, description="Seed of object, positions and noise.")
    # object
    object_kind: ObjectKind = Field(ObjectKind.TEXTURED, description="Kind of object.")
    object_shape: tuple[int, int] | None = Field(
        None, description="Height and width of the object in pixels (default: as the scan needs, with a margin)."
    )
    amplitude: tuple[float, float] = Field((0.4, 1.0), description="Range of the object's amplitude.")
    phase_rad: tuple[float, float] = Field((-1.0, 1.0), description="Range of the object's phase, rad.")
    # probe
    probe_kind: ProbeKind = Field(ProbeKind.DISC, description="Kind of probe.")
    probe_modes: int = Field(1, ge=1, le=10, description="Mutually incoherent probe modes.")
    # positions
    scan_kind: ScanKind = Field(ScanKind.JITTERED, description="Kind of scan.")
    rows: int = Field(45, ge=1, description="Rows of positions; a spiral has rows * cols positions.")
    cols: int = Field(45, ge=1, description="Columns of positions.")
    step_px: float | None = Field(
        None,
        gt=0,
        description="Distance of neighbouring positions in pixels (default: 7 at N = 64, proportional to N).",
    )
    overlap: float | None = Field(
        None, ge=0, lt=1, description="1 - step / full width at half maximum of the probe; another way to set step_px."
    )
    jitter_px: float | None = Field(
        None, ge=0, description="Maximum random shift of the positions in y and x, in pixels (default: 2 at N = 64)."
    )
    # detector
    nphotons: float = Field(
        1e6, gt=0, le=4e9, description="Mean photons per pattern where the object is 1: the energy of the probe."
    )
    detector_offset_px: tuple[float, float] | None = Field(
        None, description="(y, x) shift of the patterns on the detector in pixels; the stored probe does not have it."
    )
    bad_pixel_fraction: float = Field(
        0.0, ge=0, le=0.5, description="Fraction of detector pixels that measure nothing."
    )
    write_patches: bool = Field(False, description="Store the true patch of every pattern: n * N * N * 8 bytes.")

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.N not in SUPPORTED_N:
            raise ValueError(f"N = {self.N} is not supported; use one of {SUPPORTED_N}")
        if self.step_px is not None and self.overlap is not None:
            raise ValueError(f"step_px {self.step_px} and overlap {self.overlap} both set the step; give one of them")
        if self.jitter_px is not None and self.jitter_px > 0 and self.scan_kind is not ScanKind.JITTERED:
            raise ValueError(
                f"jitter_px {self.jitter_px} has no effect on a {self.scan_kind} scan; use scan_kind jittered"
            )
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
