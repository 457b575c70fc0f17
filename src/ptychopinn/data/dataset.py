"""The scan: patterns in counts or amplitudes, positions in pixels, and a probe."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ptychopinn.arrays import Array
from ptychopinn.config.reading import Measurement as Measurement
from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.diagnostics import Problem
from ptychopinn.data.lazy_rows import LazyRows, as_slice, release_pages, take_rows
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.errors import DataError
from ptychopinn.probe_variation import ProbeVariation
from ptychopinn.short_repr import ShortRepr
from ptychopinn.spill import SpillableRows
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray, IntArray

if TYPE_CHECKING:
    from ptychopinn.data.scaling import Scaling

_log = logging.getLogger(__name__)
_FILL_PATTERNS, _FILL_AT_ONCE = 1024, 64  # of which the mean replaces bad values


class ScanMetadata(BaseModel):
    """Metadata of a scan (`_metadata` in scan files)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_version: int = Field(1, ge=1, description="Version of this metadata schema.")
    measurement: Measurement | None = Field(None, description="Domain of the patterns: counts or amplitude.")
    nphotons: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Mean photons per pattern; the dose of normalised amplitudes."
    )
    nphotons_assumed: bool = Field(False, description="Whether nphotons is a default because it was unknown.")
    pixel_size_m: float | None = Field(None, gt=0, allow_inf_nan=False, description="Object pixel size, metres.")
    probe_energy_eV: float | None = Field(  # noqa: N815 - the unit's own spelling
        None, gt=0, allow_inf_nan=False, description="Photon energy, eV."
    )
    detector_distance_m: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Distance from sample to detector, metres."
    )
    saturation_counts: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Counts of a saturated pixel: so many or more reached it."
    )
    source: str = Field("", description="Source of the data.")


@dataclass(frozen=True, eq=False, repr=False)
class ScanDataset(ShortRepr):
    """One scan, checked on creation and read-only afterwards."""

    # (n, N, N) of any real dtype, in the domain ``measurement``, DC at ``[N//2, N//2]``. They may be memory-mapped or
    # rows of a larger array; use `counts` to read them.
    patterns: AnyArray | LazyRows | SpillableRows
    measurement: Measurement
    # (n, 2) float64, (y, x) of the probe centre in object pixels; integers are pixel centres. Pattern j sees
    # ``object[y + r_y - (N-1)/2, x + r_x - (N-1)/2]``.
    positions: FloatArray
    probe: ComplexArray  # (modes, N, N) complex64, in any scale; `ptychopinn.data.scaling.fit_scaling` finds the scale
    # How the first mode of the probe varies from pattern to pattern about ``probe``, in its scale; None if it does not.
    probe_variation: ProbeVariation | None = None
    object_guess: ComplexArray | None = None  # (H, W) complex64, in the frame of the positions, or None
    # (n, N, N) complex64 ground-truth patches (key ``Y``), or None.
    patches_guess: ComplexArray | LazyRows | None = None
    # (n,) int64: number of the scan of each pattern. All scans are of one object and share one frame. Groups never
    # cross scans; a reconstruction uses all scans.
    scan_index: IntArray = field(default=None)  # type: ignore[arg-type]
    # (N, N) bool; True pixels have no measurement and no loss.
    bad_pixels: BoolArray = field(default=None)  # type: ignore[arg-type]
    # Pixels without a measurement in some patterns only; None in most scans.
    bad_values: BadValues | None = None
    metadata: ScanMetadata = field(default_factory=ScanMetadata)
    # Counts are ``patterns * counts_per_unit`` (domain counts) or ``patterns**2 * counts_per_unit`` (amplitude); 1
    # unless normalised amplitudes have a dose.
    counts_per_unit: float = 1.0
    name: str = "scan"
    # (n,) int64: number of each pattern in the file, if some of the file were left out; None: 0, 1, 2, ...
    numbers: IntArray | None = None
    findings: tuple[Problem, ...] = ()  # what was mended when it was read
    scaling: Scaling | None = None  # of the whole scan, if this is a part of it; None: fitted to these patterns
    # The patterns and positions, if these passed the checks (`as_checked`); None if not, or if they were replaced.
    checked: tuple[object, object] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._check_patterns()
        object.__setattr__(self, "measurement", Measurement(self.measurement))
        n, size = self.patterns.shape[:2]
        if self.scan_index is None:
            object.__setattr__(self, "scan_index", np.zeros(n, np.int64))
        if self.bad_pixels is None:
            object.__setattr__(self, "bad_pixels", np.zeros((size, size), bool))
        self._check_shapes(n, size)
        self._check_values()
        if self.bad_values is not None and self.bad_values.fill is None:
            object.__setattr__(self, "bad_values", replace(self.bad_values, fill=self._mean_of_others(self.bad_values)))
        for name, dtype in (("positions", np.float64), ("scan_index", np.int64), ("bad_pixels", np.bool_)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        for name in ("probe", "object_guess", "patches_guess"):
            value = getattr(self, name)
            if value is not None and value.dtype != np.complex64:
                object.__setattr__(self, name, np.asarray(value, np.complex64))
        if self.checked is not None and not (self.checked[0] is self.patterns and self.checked[1] is self.positions):
            object.__setattr__(self, "checked", None)

    def _check_patterns(self) -> None:
        p = self.patterns
        if p.ndim != 3 or p.shape[1] != p.shape[2]:
            raise DataError(
                f"Patterns of shape {p.shape} were given; (n, N, N) is needed.", "Crop or pad them to squares."
            )
        if p.dtype.kind not in "iuf":
            raise DataError(
                f"Patterns of dtype {p.dtype} were given; real numbers are needed.", "Give counts or amplitudes."
            )

    def _check_shapes(self, n: int, size: int) -> None:
        """Refuse arrays that do not go with n patterns of size x size."""
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
        bad = self.bad_values
        if bad is not None and (len(bad), *bad.size) != (n, size, size):
            raise DataError(
                f"The bad values are of {len(bad)} patterns of {bad.size}; there are {n} of {size} x {size}.",
                "Give every pattern its own, in the same order.",
            )
        if self.probe.ndim != 3 or self.probe.shape[1:] != (size, size):
            raise DataError(
                f"The probe has the shape {self.probe.shape}; with patterns of {size} x {size} it must be "
                f"(modes, {size}, {size}).",
                "Crop or pad the probe to the size of the patterns.",
            )
        if self.probe_variation is not None:
            self.probe_variation.check(n, size)
        if self.object_guess is not None and self.object_guess.ndim != 2:
            raise DataError(
                f"object_guess has the shape {self.object_guess.shape}; (H, W) is needed.", "Give one layer."
            )

    def _check_values(self) -> None:
        if not np.isfinite(self.positions).all():
            raise DataError("Scan positions that are not finite were given.", "Remove those patterns.")
        if not (np.isfinite(self.counts_per_unit) and self.counts_per_unit > 0):
            raise DataError(
                f"counts_per_unit is {self.counts_per_unit}; it must be positive.", "Give the photon count."
            )

    def _mean_of_others(self, bad: BadValues) -> FloatArray:
        """(N, N) float32: mean of the values of each pixel that are not bad, of evenly spread patterns."""
        total, seen = np.zeros(bad.size), np.zeros(bad.size, np.int64)
        chosen = evenly_spread(len(bad), _FILL_PATTERNS)
        for start in range(0, len(chosen), _FILL_AT_ONCE):
            index = chosen[start : start + _FILL_AT_ONCE]
            with np.errstate(over="ignore", invalid="ignore"):
                block = np.array(self.patterns[index], np.float32)
            masks = bad.masks(index)
            block[masks] = 0
            total += block.sum(axis=0)
            seen += (~masks).sum(axis=0)
        mean = (total / np.maximum(seen, 1)).astype(np.float32)
        return np.where(np.isfinite(mean), mean, np.float32(0))

    def __len__(self) -> int:
        return int(self.patterns.shape[0])

    @property
    def N(self) -> int:  # noqa: N802 - the field's own name
        """Width of a pattern in detector pixels."""
        return int(self.patterns.shape[1])

    @property
    def bad_counts(self) -> dict[str, int]:
        """Number of bad pixels and, if there are any, of bad values of single patterns, by name."""
        counts = {"bad pixels": int(self.bad_pixels.sum())}
        if self.bad_values is not None:
            counts["bad values of single patterns"] = len(self.bad_values.pixels)
        return counts

    @property
    def positions_by_number(self) -> FloatArray:
        """(m, 2) float64 (y, x): positions at the numbers of their patterns; NaN where a pattern was left out."""
        if self.numbers is None:
            return self.positions
        table = np.full((int(self.numbers.max(initial=-1)) + 1, 2), np.nan)
        table[self.numbers] = self.positions
        return table

    def log_mean_probe(self) -> None:
        """Log, where only one probe can be used for all patterns, that it is the mean of those of the scan."""
        if self.probe_variation is not None:
            _log.warning(
                "The probe of '%s' varies over the scan (%d modes); here its mean is used for all patterns.",
                self.name,
                len(self.probe_variation.modes),
            )

    def log_scan_count(self) -> None:
        """Log it if several scans are reconstructed as one object."""
        if (count := len(np.unique(self.scan_index))) > 1:
            _log.info(
                "The %d scans of '%s' (scan_index) are reconstructed as one object: their positions have one frame.",
                count,
                self.name,
            )

    def counts(self, indices: IntArray | slice) -> FloatArray:
        """Photon counts of (b,) patterns, or of a slice: (b, N, N) float32, zero at bad pixels.

        Bad values of single patterns are what the pixel has on average in the others.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # values at bad pixels may be anything
            # Always a copy, because it is changed below. Consecutive rows are a view, so they are copied once.
            block = np.array(self.patterns[as_slice(indices)], np.float32)
        release_pages(self.patterns)
        if self.bad_values is not None:
            self.bad_values.put_fill(block, indices)
        if self.bad_pixels.any():
            block[..., self.bad_pixels] = 0
        counts: FloatArray = self.to_counts(block)
        return counts

    def marked_counts(self, indices: IntArray | slice) -> FloatArray:
        """As `counts`, but bad values of single patterns are -1 minus these counts.

        So one array has the counts, what was not measured, and what a network sees there.
        """
        counts = self.counts(indices)
        if self.bad_values is not None:
            self.bad_values.put(counts, indices, lambda filled: -1 - filled)
        return counts

    def to_counts(self, values: Array) -> Array:
        """Convert numbers of patterns (float32, any library) to photon counts in place.

        Only this method converts a domain to counts.
        """
        if self.measurement is Measurement.AMPLITUDE:
            values *= values
        if self.counts_per_unit != 1.0:
            values *= self.counts_per_unit
        return values

    def raw(self, indices: IntArray | slice) -> AnyArray:
        """The stored numbers of some patterns, (b, N, N); a copy, or read-only."""
        block = np.ascontiguousarray(self.patterns[as_slice(indices)])
        return block

    def select(self, indices: IntArray) -> ScanDataset:
        """The scan with only the patterns at (k,) ``indices``, in this order, without a copy."""
        index = np.asarray(indices, np.int64)
        part = replace(
            self,
            patterns=take_rows(self.patterns, index),
            positions=self.positions[index],
            scan_index=self.scan_index[index],
            numbers=None if self.numbers is None else self.numbers[index],
            bad_values=None if self.bad_values is None else self.bad_values.select(index),
            probe_variation=None if self.probe_variation is None else self.probe_variation.select(index),
            patches_guess=None if self.patches_guess is None else take_rows(self.patches_guess, index),
        )
        return part if self.checked is None else part.as_checked()

    def as_checked(self) -> Self:
        """The scan with a note that it passed the checks, so that they need not be made again."""
        return replace(self, checked=(self.patterns, self.positions))


def check_writable(data: ScanDataset) -> None:
    """Refuse to write a scan without patterns.

    Raises
    ------
    DataError
        If it has none.
    """
    if len(data) == 0:
        raise DataError("A scan without patterns cannot be written.", "Give at least one pattern.")
