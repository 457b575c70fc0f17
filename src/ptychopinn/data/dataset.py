"""The frozen scan: patterns with their measurement domain, positions with their unit, a probe."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ptychopinn.arrays import Array
from ptychopinn.config.reading import Measurement as Measurement
from ptychopinn.data.lazy_rows import LazyRows, as_slice, release_pages, take_rows
from ptychopinn.errors import DataError
from ptychopinn.spill import SpillableRows
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray, IntArray

if TYPE_CHECKING:
    from ptychopinn.data.scaling import Scaling

_log = logging.getLogger(__name__)


class ScanMetadata(BaseModel):
    """Facts about a scan that its arrays do not carry (the `_metadata` of the NPZ contract)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_version: int = Field(1, ge=1, description="Version of this metadata schema.")
    measurement: Measurement | None = Field(None, description="Domain of the patterns: counts or amplitude.")
    nphotons: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Mean photons a pattern; gives normalised amplitudes their dose."
    )
    nphotons_assumed: bool = Field(False, description="True if nobody knew nphotons and a default was taken.")
    pixel_size_m: float | None = Field(None, gt=0, allow_inf_nan=False, description="Object pixel size, metres.")
    probe_energy_eV: float | None = Field(  # noqa: N815 - the unit's own spelling
        None, gt=0, allow_inf_nan=False, description="Photon energy, eV."
    )
    detector_distance_m: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Sample to detector, metres."
    )
    source: str = Field("", description="Where the data came from.")


@dataclass(frozen=True, eq=False)
class ScanDataset:
    """One scan, checked once when it is made, read-only afterwards.

    Attributes
    ----------
    patterns:
        (n, N, N) real, in the domain ``measurement``, DC at ``[N//2, N//2]``; may be memory-mapped and of
        any real dtype, and rows of a larger array: use `counts` to read them.
    measurement:
        Domain of ``patterns``.
    positions:
        (n, 2) float64, (y, x) of the probe centre in object pixels; integers are pixel centres. Pattern j sees
        ``object[y + r_y - (N-1)/2, x + r_x - (N-1)/2]``.
    probe:
        (modes, N, N) complex64, in any scale: `ptychopinn.data.scaling.fit_scaling` sets it to counts.
    object_guess:
        (H, W) complex64, in the frame of the positions, or None.
    patches_guess:
        (n, N, N) complex64 ground-truth patches (key ``Y``), or None.
    scan_index:
        (n,) int64: several scans of one object, whose positions have one frame. Groups never cross scans; a
        reconstruction is of all of them together.
    bad_pixels:
        (N, N) bool; True pixels carry no measurement and no loss.
    counts_per_unit:
        Counts = ``patterns * counts_per_unit`` (domain counts) or ``patterns**2 * counts_per_unit`` (amplitude):
        1 unless normalised amplitudes were given a dose.
    scaling:
        How the whole is scaled where this is a part of a scan; None: fitted to these patterns.
    """

    patterns: AnyArray | LazyRows | SpillableRows
    measurement: Measurement
    positions: FloatArray
    probe: ComplexArray
    object_guess: ComplexArray | None = None
    patches_guess: ComplexArray | LazyRows | None = None
    scan_index: IntArray = field(default=None)  # type: ignore[arg-type]
    bad_pixels: BoolArray = field(default=None)  # type: ignore[arg-type]
    metadata: ScanMetadata = field(default_factory=ScanMetadata)
    counts_per_unit: float = 1.0
    name: str = "scan"
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        p = self.patterns
        if p.ndim != 3 or p.shape[1] != p.shape[2]:
            raise DataError(
                f"Patterns of shape {p.shape} were given; (n, N, N) is needed.", "Crop or pad them to squares."
            )
        if p.dtype.kind not in "iuf":
            raise DataError(
                f"Patterns of dtype {p.dtype} were given; real numbers are needed.", "Give counts or amplitudes."
            )
        object.__setattr__(self, "measurement", Measurement(self.measurement))
        n, size = p.shape[0], p.shape[1]
        if self.scan_index is None:
            object.__setattr__(self, "scan_index", np.zeros(n, np.int64))
        if self.bad_pixels is None:
            object.__setattr__(self, "bad_pixels", np.zeros((size, size), bool))
        expected: list[tuple[str, AnyArray | LazyRows | SpillableRows | None, tuple[int, ...]]] = [
            ("positions", self.positions, (n, 2)),
            ("scan_index", self.scan_index, (n,)),
            ("bad_pixels", self.bad_pixels, (size, size)),
            ("patches_guess", self.patches_guess, (n, size, size)),
        ]
        for name, array, shape in expected:
            if array is not None and array.shape != shape:
                raise DataError(
                    f"{name} has the shape {array.shape}; with {n} patterns of {size} x {size} it must be {shape}.",
                    "Give every pattern its entry, in the same order.",
                )
        if self.probe.ndim != 3 or self.probe.shape[1:] != (size, size):
            raise DataError(
                f"The probe has the shape {self.probe.shape}; with patterns of {size} x {size} it must be "
                f"(modes, {size}, {size}).",
                "Crop or pad the probe to the size of the patterns.",
            )
        if self.object_guess is not None and self.object_guess.ndim != 2:
            raise DataError(
                f"object_guess has the shape {self.object_guess.shape}; (H, W) is needed.", "Give one layer."
            )
        if not np.isfinite(self.positions).all():
            raise DataError("Scan positions that are not finite were given.", "Remove those patterns.")
        if not (np.isfinite(self.counts_per_unit) and self.counts_per_unit > 0):
            raise DataError(
                f"counts_per_unit is {self.counts_per_unit}; it must be positive.", "Give the photon count."
            )
        for name, dtype in (("positions", np.float64), ("scan_index", np.int64), ("bad_pixels", np.bool_)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        for name in ("probe", "object_guess", "patches_guess"):
            value = getattr(self, name)
            if value is not None and value.dtype != np.complex64:
                object.__setattr__(self, name, np.asarray(value, np.complex64))

    def __len__(self) -> int:
        return int(self.patterns.shape[0])

    @property
    def N(self) -> int:  # noqa: N802 - the field's own name
        """Width of a pattern in detector pixels."""
        return int(self.patterns.shape[1])

    def log_scan_count(self) -> None:
        """Log that several scans are reconstructed as one object, if there are several."""
        if (count := len(np.unique(self.scan_index))) > 1:
            _log.info(
                "The %d scans of '%s' (scan_index) are reconstructed as one object: their positions have one frame.",
                count,
                self.name,
            )

    def counts(self, indices: IntArray | slice) -> FloatArray:
        """Photon counts of some patterns.

        Parameters
        ----------
        indices:
            (b,) integers, or a slice.

        Returns
        -------
        (b, N, N) float32, zero at bad pixels.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # of what stands at bad pixels
            # Always a copy: it is written to below. Rows that follow each other are a view, and copied once.
            block = np.array(self.patterns[as_slice(indices)], np.float32)
        release_pages(self.patterns)
        if self.bad_pixels.any():
            block[..., self.bad_pixels] = 0
        counts: FloatArray = self.to_counts(block)
        return counts

    def to_counts(self, values: Array) -> Array:
        """Photon counts of numbers of patterns, float32 arrays of any library; changes them.

        This is the only place where a domain becomes counts.
        """
        if self.measurement is Measurement.AMPLITUDE:
            values *= values
        if self.counts_per_unit != 1.0:
            values *= self.counts_per_unit
        return values

    def raw(self, indices: IntArray | slice) -> AnyArray:
        """Numbers of some patterns as they stand, (b, N, N); a copy, or read-only."""
        block = np.ascontiguousarray(self.patterns[as_slice(indices)])
        return block

    def select(self, indices: IntArray) -> ScanDataset:
        """The same scan with only these patterns, in this order; they are not copied.

        Parameters
        ----------
        indices:
            (k,) integers.
        """
        index = np.asarray(indices, np.int64)
        return replace(
            self,
            patterns=take_rows(self.patterns, index),
            positions=self.positions[index],
            scan_index=self.scan_index[index],
            patches_guess=None if self.patches_guess is None else take_rows(self.patches_guess, index),
        )
