"""The contract of scan files: make a scan of an open file, and collect all problems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ptychopinn.config.model import SUPPORTED_N
from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.bad_value_checks import mark_bad_values, refuse_bad_values
from ptychopinn.data.bad_values import MASKS_KEY, OFFSETS_KEY, PIXELS_KEY, BadValues, Unmeasured
from ptychopinn.data.dataset import Measurement, ScanDataset, ScanMetadata
from ptychopinn.data.defects import check_unit, leave_out, mark_bad_pixels
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.doubts import check_doubts
from ptychopinn.data.lazy_rows import LazyRows, take_rows
from ptychopinn.data.pattern_checks import check_background, check_patterns, plateau_level
from ptychopinn.data.scan_file import ScanFile
from ptychopinn.data.scan_reader import Reader
from ptychopinn.data.splits import probe_radius_px
from ptychopinn.data.statistics import PatternStatistics, pattern_statistics
from ptychopinn.data.units import StoredPatterns, resolve_dose, resolve_measurement, resolve_saturation
from ptychopinn.errors import ResourceError
from ptychopinn.probe_variation import MODES_KEY, WEIGHTS_KEY, ProbeVariation
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray, IntArray

PATTERN_KEYS = ("diffraction", "diff3d")
_POSITION_KEYS = ("xcoords", "ycoords", "xcoords_start", "ycoords_start")
_OTHER_KEYS = ("probeGuess", "objectGuess", "Y", "scan_index", "bad_pixels", "_metadata")
_BAD_VALUE_KEYS = (OFFSETS_KEY, PIXELS_KEY, MASKS_KEY)
_VARIATION_KEYS = (MODES_KEY, WEIGHTS_KEY)
CONTRACT_KEYS = frozenset((*PATTERN_KEYS, *_POSITION_KEYS, *_OTHER_KEYS, *_BAD_VALUE_KEYS, *_VARIATION_KEYS))
_CENTRE_RATIO = 2.0  # a corner must hold this many times the energy of the centre; a flat pattern passes
_CENTRE_SHARE = 0.4  # and this share of the total; a flat pattern has a quarter
_MIN_TRAINING = 2
_SPAN_PX = 100_000  # an object this wide needs 80 GB: the positions are not in pixels


@dataclass(frozen=True)
class ReadResult:
    """A scan as read, and the statistics of its values."""

    data: ScanDataset
    seen: PatternStatistics


def interpret(file: ScanFile, options: ReadOptions, findings: Findings) -> ReadResult | None:
    """Read a scan from an open file.

    Parameters
    ----------
    file:
        From `ptychopinn.data.scan_file.open_npz`.
    findings:
        Every problem is added here; nothing is logged.

    Returns
    -------
    The scan, or None if ``findings`` has an error.

    Raises
    ------
    ResourceError
        If it does not fit into memory.
    """
    for note in file.notes:
        findings.note("", note)
    for warning in file.warnings:
        findings.warning("", warning)
    findings.problems.extend(file.mended)
    try:
        return _interpret(file, options, findings)
    except MemoryError as error:
        raise ResourceError(
            f"{file.path} does not fit into memory: {error}.", "Use a machine with more memory, or a part of the scan."
        ) from error


@dataclass(frozen=True, eq=False)
class _Arrays:
    """The arrays of a file that has patterns, as it has them; None where there is none, or one that is refused."""

    name: str
    key: str
    patterns: AnyArray | LazyRows
    x: FloatArray | None
    y: FloatArray | None
    probe: ComplexArray | None
    probe_variation: ProbeVariation | None
    object_guess: ComplexArray | None
    patches: ComplexArray | LazyRows | None
    scan_index: IntArray | None
    bad_pixels: BoolArray
    bad_values: BadValues | None

    @property
    def positions(self) -> FloatArray | None:
        """(n, 2) float64 (y, x), or None."""
        if self.x is None or self.y is None or len(self.x) != len(self.y):
            return None
        return np.stack([self.y, self.x], axis=1)

    def select(self, numbers: IntArray) -> _Arrays:
        """With some of the patterns, without a copy."""

        def of(values: Any) -> Any:
            return None if values is None else values[numbers]

        return replace(
            self,
            patterns=take_rows(self.patterns, numbers),
            x=of(self.x),
            y=of(self.y),
            patches=None if self.patches is None else take_rows(self.patches, numbers),
            scan_index=of(self.scan_index),
            bad_values=None if self.bad_values is None else self.bad_values.select(numbers),
            probe_variation=None if self.probe_variation is None else self.probe_variation.select(numbers),
        )

    def shifted(self) -> _Arrays:
        """With DC of patterns and mask moved from the corner to the centre."""
        patterns = np.fft.fftshift(np.asarray(self.patterns), axes=(1, 2))
        bad, values = np.fft.fftshift(self.bad_pixels), self.bad_values
        if values is not None:
            values = values.changed(lambda masks: np.fft.fftshift(masks, axes=(1, 2)), values.size)
        return replace(self, patterns=patterns, bad_pixels=bad, bad_values=values)


def _interpret(file: ScanFile, options: ReadOptions, findings: Findings) -> ReadResult | None:
    reader = Reader(file, findings)
    metadata = reader.metadata()
    arrays = _read_arrays(reader)
    if arrays is None:
        return None
    if options.fftshift:
        arrays = arrays.shifted()
        findings.note(arrays.key, "DC moved from the corner to the centre of the patterns and of bad_pixels, as asked.")
    stored = _look_at(arrays, findings)
    return None if metadata is None else _make_scan(arrays, stored, metadata, options, findings)


def _read_arrays(reader: Reader) -> _Arrays | None:
    """All arrays of a file; None where it has no patterns or no mask to go by (an error is in the findings)."""
    findings = reader.findings
    x, y = reader.coordinates("xcoords"), reader.coordinates("ycoords")
    key = "diffraction" if reader.has("diffraction") or not reader.has("diff3d") else "diff3d"
    if key == "diffraction" and reader.has("diff3d"):
        findings.note("diff3d", "Not read: diffraction is there, and wins.")
    patterns = _patterns(reader, key, None if x is None else len(x))
    for name in sorted((reader.file.members.keys() | reader.file.broken.keys()) - CONTRACT_KEYS):
        findings.note(name, "Not read: the key is not in the contract.")
    for name, used in (("xcoords_start", x), ("ycoords_start", y)):
        if used is not None and reader.has(name):
            _compare_start(reader, name, used)
    if patterns is None:
        reader.load("probeGuess", kinds="fc", what="a complex array (modes, N, N)", required=True)
        reader.object_guess()
        return None
    n, size = patterns.shape[:2]
    for name, values in (("xcoords", x), ("ycoords", y)):
        if values is not None and len(values) != n:
            findings.error(
                name,
                f"It has {len(values)} values for {n} patterns (shape {patterns.shape}).",
                "Give every pattern one.",
            )
    probe, object_guess, patches = reader.probe(size), reader.object_guess(), reader.patches(n, size)
    scan_index, bad = reader.scan_index(n), reader.unmeasured(n, size)
    if bad is None:
        return None
    return _Arrays(
        name=reader.file.path.stem,
        key=key,
        patterns=patterns,
        x=x,
        y=y,
        probe=probe,
        probe_variation=reader.probe_variation(n, size),
        object_guess=object_guess,
        patches=patches,
        scan_index=scan_index,
        bad_pixels=bad.pixels,
        bad_values=bad.values,
    )


def _look_at(arrays: _Arrays, findings: Findings) -> StoredPatterns:
    """The statistics of the patterns; pixels that are no measurement join the bad ones."""
    known = Unmeasured(arrays.bad_pixels, arrays.bad_values)
    seen, bad = mark_bad_values(arrays.key, arrays.patterns, known, findings)
    refuse_bad_values(arrays.key, arrays.patterns, seen, findings)
    return StoredPatterns(arrays.key, arrays.patterns.dtype, seen, bad.pixels, bad.values)


def _make_scan(
    arrays: _Arrays, stored: StoredPatterns, metadata: ScanMetadata, options: ReadOptions, findings: Findings
) -> ReadResult | None:
    """Decide what the numbers are, and put the scan together; None where an error is in the findings."""
    probe = arrays.probe
    energy = None if probe is None else float((np.abs(probe.astype(np.complex128)) ** 2).sum())
    measurement = resolve_measurement(stored, energy, metadata, options.measurement, findings)
    if measurement is None:
        return None
    n = arrays.patterns.shape[0]
    arrays, stored, numbers = _mended(arrays, stored, metadata, measurement, options, findings)
    seen = stored.seen
    dose = resolve_dose(stored, metadata, measurement, options.nphotons, findings)
    _check_centre(stored.key, seen.mean**2 if measurement is Measurement.AMPLITUDE else seen.mean, findings)
    positions = arrays.positions
    if positions is not None and np.isfinite(positions).all():
        _check_span(positions, findings)
        if probe is not None:
            check_unit(positions, 2 * probe_radius_px(probe), metadata, findings)
    elif positions is not None:
        _refuse_positions(positions, findings)
    if findings.errors or dose is None or positions is None or probe is None or arrays.scan_index is None:
        return None
    per_unit, assumed = dose
    level = resolve_saturation(stored, metadata, measurement, options.saturation_counts)
    if level is None and options.saturation_counts is None and metadata.saturation_counts is None:
        bad = Unmeasured(stored.bad_pixels, stored.bad_values)
        level = plateau_level(arrays.patterns, bad, per_unit, findings, squared=measurement is Measurement.AMPLITUDE)
    sums = _energies(seen, measurement)
    data = ScanDataset(
        patterns=arrays.patterns,
        measurement=measurement,
        positions=positions,
        probe=probe,
        probe_variation=arrays.probe_variation,
        object_guess=arrays.object_guess,
        patches_guess=arrays.patches,
        scan_index=arrays.scan_index,
        bad_pixels=stored.bad_pixels,
        bad_values=stored.bad_values,
        metadata=metadata.model_copy(
            update={
                "measurement": measurement,
                "nphotons": float(sums.mean()) * per_unit,
                "nphotons_assumed": assumed,
                "saturation_counts": None if level is None else level * per_unit,
            }
        ),
        counts_per_unit=per_unit,
        name=arrays.name,
        numbers=None if len(numbers) == n else numbers,
    )
    check_patterns(sums * per_unit, stored.dtype, seen, findings)
    check_background(_mean_counts(seen, measurement) * per_unit, stored.bad_pixels, findings)
    stated = options.nphotons is not None or (measurement is Measurement.AMPLITUDE and metadata.nphotons is not None)
    check_doubts(data, sums * per_unit, dose_is_known=stated or assumed, findings=findings)
    return ReadResult(replace(data, findings=tuple(findings.mended)).as_checked(), seen)


def _energies(seen: PatternStatistics, measurement: Measurement) -> FloatArray:
    return seen.square_sums if measurement is Measurement.AMPLITUDE else seen.sums


def _mean_counts(seen: PatternStatistics, measurement: Measurement) -> FloatArray:
    """(N, N) mean counts of the pixels, in the unit of the file; of amplitudes the squared mean."""
    return seen.mean * seen.mean if measurement is Measurement.AMPLITUDE else seen.mean


def _mended(
    arrays: _Arrays,
    stored: StoredPatterns,
    metadata: ScanMetadata,
    measurement: Measurement,
    options: ReadOptions,
    findings: Findings,
) -> tuple[_Arrays, StoredPatterns, IntArray]:
    """Leave out patterns that are no measurement, then mark dead and hot pixels; also the numbers of what stays."""
    n = arrays.patterns.shape[0]
    numbers = np.arange(n)
    scan_index = np.zeros(n, np.int64) if arrays.scan_index is None else arrays.scan_index
    if any(values is not None and len(values) != n for values in (arrays.x, arrays.y)):
        return arrays, stored, numbers
    # For the number of photons alone: what it says is said again for the patterns that stay.
    dose = resolve_dose(stored, metadata, measurement, options.nphotons, Findings())
    if dose is None:
        return arrays, stored, numbers
    counts = _energies(stored.seen, measurement) * dose[0]
    known = Unmeasured(stored.bad_pixels, stored.bad_values)
    numbers = leave_out(counts, arrays.positions, scan_index, known, findings)
    values = stored.bad_values
    if len(numbers) < n:
        arrays, values = arrays.select(numbers), None if values is None else values.select(numbers)
        seen = pattern_statistics(arrays.patterns, stored.bad_pixels, values)
        stored = replace(stored, seen=seen, bad_values=values)
    mean = _mean_counts(stored.seen, measurement)
    bad = mark_bad_pixels(mean * dose[0], len(numbers), stored.bad_pixels, arrays.probe, findings)
    if not np.array_equal(bad, stored.bad_pixels):
        values = None if values is None else values.outside(bad)
        seen = pattern_statistics(arrays.patterns, bad, values)
        stored = replace(stored, bad_pixels=bad, bad_values=values, seen=seen)
    return arrays, stored, numbers


def _check_span(positions: FloatArray, findings: Findings) -> None:
    for key, values in zip(("ycoords", "xcoords"), positions.T, strict=True):
        if len(values) and (span := float(np.ptp(values))) > _SPAN_PX:
            findings.error(
                key, f"The positions span {span:.4g} pixels, more than {_SPAN_PX}.", "Give them in object pixels."
            )


def _refuse_positions(positions: FloatArray, findings: Findings) -> None:
    for key, values in zip(("ycoords", "xcoords"), positions.T, strict=True):
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            findings.error(
                key,
                f"{len(wrong)} of {len(values)} values are not finite (the first at index {wrong[0]}), too many to "
                "leave out.",
                "Remove those patterns or give their positions.",
            )


def _patterns(reader: Reader, key: str, positions: int | None) -> AnyArray | None:
    """(n, N, N) patterns, memory-mapped if possible; None, with an error in the findings, if they are wrong."""
    findings = reader.findings
    patterns = reader.load(key, kinds="iuf", what="a real array (n, N, N) of counts or amplitudes", required=True)
    if patterns is None:
        return None
    shape = patterns.shape
    if patterns.ndim != 3:
        findings.error(
            key, f"It has shape {shape} and dtype {patterns.dtype}; (n, N, N) is needed.", "Save one square a pattern."
        )
        return None
    if shape[0] == shape[1] != shape[2] and shape[0] in SUPPORTED_N and positions in (None, shape[2]):
        findings.warning(
            key,
            f"Shape {shape} is read as (N, N, n) and moved to (n, N, N) in memory.",
            "Write a canonical file once: ptychopinn convert.",
        )
        patterns = np.moveaxis(patterns, 2, 0)
    elif patterns.size and not patterns.flags.c_contiguous:
        findings.note(key, "Fortran order is read into memory, in C order.")
    n, height, width = patterns.shape
    if height != width:
        findings.error(
            key, f"The patterns are {height} x {width} (shape {shape}); squares are needed.", "Crop or pad them."
        )
        return None
    if height not in SUPPORTED_N:
        findings.error(
            key, f"The patterns are {height} x {width} (shape {shape}); N is one of {SUPPORTED_N}.", "Crop or pad them."
        )
        return None
    if n == 0:
        findings.error(key, f"It holds no pattern (shape {shape}).", "Export the scan again.")
        return None
    if n < _MIN_TRAINING:
        findings.warning(key, f"It holds {n} pattern: it can be inferred, not trained on.")
    # Patterns are read block by block along the first axis: only C order makes that one pass over the file.
    return np.ascontiguousarray(patterns)


def _compare_start(reader: Reader, key: str, used: FloatArray) -> None:
    """Note that a starting position differs from the one used."""
    member = reader.file.members.get(key)
    if member is None or member.shape != used.shape or not np.array_equal(member.load(), used):
        reader.findings.note(key, f"Not used, and not the same as {key.removesuffix('_start')}.")


def _check_centre(key: str, mean: FloatArray, findings: Findings) -> None:
    """Refuse patterns whose energy is around a corner or an edge instead of ``[N//2, N//2]``."""
    half, quarter = mean.shape[0] // 2, mean.shape[0] // 4
    window = (slice(quarter, quarter + half),) * 2
    shifts = {"the centre": (0, 0), "the corner": (half, half), "the top edge": (half, 0), "the left edge": (0, half)}
    energy = {name: float(np.roll(mean, shift, (0, 1))[window].sum()) for name, shift in shifts.items()}
    best = max(energy, key=energy.__getitem__)
    total = float(mean.sum())
    if total > 0 and energy[best] > _CENTRE_RATIO * energy["the centre"] and energy[best] > _CENTRE_SHARE * total:
        findings.error(
            key,
            f"DC seems to lie at {best} of the patterns: {energy[best] / total:.0%} of the energy is around it, "
            f"{energy['the centre'] / total:.0%} around the centre.",
            "DC belongs at [N//2, N//2]: ptychopinn convert --fftshift (fftshift=True) moves it from the corner."
            if best == "the corner"
            else "DC belongs at [N//2, N//2]: apply numpy.fft.fftshift along that axis.",
        )
