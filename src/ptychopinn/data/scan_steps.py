"""Change a scan before it is checked: orientation, positions, bad pixels, background, geometry. One function a step.

Every function takes a `ptychopinn.data.raw_scan.RawScan` and returns another one with a note of what was done; none
changes its argument. Selection is in `ptychopinn.data.scan_selection`, cropping, padding and binning in
`ptychopinn.data.sizes`, probes in `ptychopinn.data.probe_recipes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from ptychopinn.data.bad_value_checks import mark_bad_values
from ptychopinn.data.bad_values import Unmeasured, unite
from ptychopinn.data.dataset import Measurement
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.raw_scan import Geometry, RawScan, is_amplitude, measured_blocks, pattern_sums, positions_of
from ptychopinn.data.row_blocks import map_rows
from ptychopinn.data.scan_selection import take_patterns
from ptychopinn.data.statistics import pattern_statistics
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray, BoolArray, FloatArray

Axis = Literal["y", "x"]
Unit = Literal["px", "m", "mm", "um", "nm", "A"]
METRES = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "A": 1e-10}
_AXES = {"y": 0, "x": 1}


def flip_patterns(raw: RawScan, axis: Axis) -> RawScan:
    """Reverse an axis of the patterns about DC, which stays at ``[N//2, N//2]``, with mask and probe.

    The probe describes the same detector, so it is reversed about the centre of its window.
    """
    number = _AXES[axis] + 1

    def reverse(array: AnyArray) -> AnyArray:
        at = number - 3
        return np.roll(np.flip(array, at), 1 - array.shape[at] % 2, at)

    return _turned(raw, reverse, lambda probe: np.flip(probe, number), raw.size, f"Patterns reversed along {axis}.")


def transpose_patterns(raw: RawScan) -> RawScan:
    """Exchange y and x of the patterns, with mask, probe and the geometry of the detector."""
    height, width = raw.size
    turned = _turned(
        raw,
        lambda array: np.swapaxes(array, -1, -2),
        lambda probe: np.swapaxes(probe, -1, -2),
        (width, height),
        "Patterns transposed.",
    )
    geometry, pixel = turned.geometry, turned.geometry.detector_pixel_m
    return replace(turned, geometry=replace(geometry, detector_pixel_m=None if pixel is None else (pixel[1], pixel[0])))


def rotate_patterns(raw: RawScan, quarter_turns: int) -> RawScan:
    """Rotate the patterns by quarter turns about DC, from the first axis towards the second as `numpy.rot90`."""
    for _ in range(quarter_turns % 4):
        raw = flip_patterns(transpose_patterns(raw), "y")
    return raw


def _turned(
    raw: RawScan,
    turn: Callable[[AnyArray], AnyArray],
    turn_probe: Callable[[AnyArray], AnyArray],
    size: tuple[int, int],
    note: str,
) -> RawScan:
    """Patterns and mask turned by one function of (..., H, W) arrays, the probe by another."""
    turned = raw.with_changes(
        note,
        patterns=map_rows(raw.patterns, turn, size, raw.patterns.dtype),
        bad_pixels=None if raw.bad_pixels is None else np.ascontiguousarray(turn(raw.bad_pixels)),
        bad_values=None if raw.bad_values is None else raw.bad_values.changed(turn, size),
        patches=None,
    )
    if raw.probe is None or raw.probe.shape[1:] != raw.size:
        return turned
    return turned.with_probe(lambda probe: np.ascontiguousarray(turn_probe(probe)))


def centre_patterns(raw: RawScan) -> RawScan:
    """Move DC of patterns and mask from the corner to ``[H//2, W//2]``."""

    def shift(array: AnyArray) -> AnyArray:
        return np.fft.fftshift(array, axes=(-2, -1))

    return raw.with_changes(
        "DC moved from the corner to the centre.",
        patterns=map_rows(raw.patterns, shift, raw.size, raw.patterns.dtype),
        bad_pixels=None if raw.bad_pixels is None else shift(raw.bad_pixels),
        bad_values=None if raw.bad_values is None else raw.bad_values.changed(shift, raw.size),
    )


def shift_patterns(raw: RawScan, shift: tuple[int, int]) -> RawScan:
    """Move patterns by whole pixels (y, x), so that DC comes to the centre; what leaves is lost, what enters is bad."""
    height, width = raw.size
    if abs(shift[0]) >= height or abs(shift[1]) >= width:
        raise DataError(f"A shift of {shift} leaves nothing of patterns of {raw.size}.", "Give a smaller shift.")

    def move(array: AnyArray) -> AnyArray:
        moved = np.zeros_like(array)
        source = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(shift, raw.size, strict=True))
        target = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(shift, raw.size, strict=True))
        moved[..., target[0], target[1]] = array[..., source[0], source[1]]
        return moved

    measured = move(np.ones(raw.size, bool))
    bad = ~measured if raw.bad_pixels is None else move(raw.bad_pixels) | ~measured
    return raw.with_changes(
        f"Patterns moved by {shift[0]} pixels in y and {shift[1]} in x.",
        patterns=map_rows(raw.patterns, move, raw.size, raw.patterns.dtype),
        bad_pixels=bad if bad.any() else None,
        bad_values=None if raw.bad_values is None else raw.bad_values.changed(move, raw.size),
    )


def conjugate_probe(raw: RawScan) -> RawScan:
    """The complex conjugate of the probe.

    Raises
    ------
    DataError
        If there is none.
    """
    _refuse_no_probe(raw)
    return raw.with_probe(np.conj).with_changes("Complex conjugate of the probe taken.")


def centre_probe(raw: RawScan) -> RawScan:
    """Move the middle of the probe from the corner of its array to the centre.

    Raises
    ------
    DataError
        If there is none.
    """
    _refuse_no_probe(raw)
    moved = raw.with_probe(lambda probe: np.fft.fftshift(probe, axes=(-2, -1)))
    return moved.with_changes("Middle of the probe moved to the centre.")


def _refuse_no_probe(raw: RawScan) -> None:
    if raw.probe is None:
        raise DataError("The scan has no probe.", "Let one be made: --probe mean, or name a file that has one.")


def set_positions(raw: RawScan, positions: FloatArray) -> RawScan:
    """Other positions (n, 2) (y, x), in the unit of the scan; the object guess has no place any more.

    Raises
    ------
    DataError
        If they are not one a pattern.
    """
    return raw.with_changes(
        f"{len(positions)} positions given.", positions=np.asarray(positions, float), object_guess=None
    )


def swap_axes(raw: RawScan) -> RawScan:
    """Exchange y and x of the positions, with the object guess."""
    positions = positions_of(raw)
    obj = None if raw.object_guess is None else np.ascontiguousarray(raw.object_guess.T)
    return raw.with_changes(
        "y and x of the positions exchanged.", positions=positions[:, ::-1].copy(), object_guess=obj
    )


def negate_positions(raw: RawScan, axis: Axis) -> RawScan:
    """Reverse an axis of the positions. The object guess is reversed too, and positions then count from its end."""
    number = _AXES[axis]
    positions = positions_of(raw).copy()
    positions[:, number] *= -1
    obj = raw.object_guess
    if obj is not None and raw.unit == "px":
        positions[:, number] += obj.shape[number] - 1
        obj = np.ascontiguousarray(np.flip(obj, number))
    return raw.with_changes(f"{axis} of the positions negated.", positions=positions, object_guess=obj)


def scale_positions(raw: RawScan, factor: tuple[float, float]) -> RawScan:
    """Multiply positions by (y, x) factors; the object guess has no place any more.

    Raises
    ------
    DataError
        If a factor is zero or not finite.
    """
    if not all(math.isfinite(f) and f != 0 for f in factor):
        raise DataError(f"Positions cannot be scaled by {factor}.", "Give factors that are not zero.")
    return raw.with_changes(
        f"Positions multiplied by {factor[0]:.6g} in y and {factor[1]:.6g} in x.",
        positions=positions_of(raw) * np.array(factor),
        object_guess=None,
    )


def offset_positions(raw: RawScan, offset: tuple[float, float]) -> RawScan:
    """Add (y, x) to the positions, in their unit; the object guess has no place any more."""
    return raw.with_changes(
        f"{offset[0]:.6g} added to y and {offset[1]:.6g} to x of the positions.",
        positions=positions_of(raw) + np.array(offset),
        object_guess=None,
    )


def roll_positions(raw: RawScan, count: int) -> RawScan:
    """Give pattern j the position of pattern j - count; patterns without one at the ends are left out.

    Raises
    ------
    DataError
        If nothing is left.
    """
    n = len(raw.patterns)
    if abs(count) >= n:
        raise DataError(f"Positions of {n} patterns cannot be moved by {count} in the list.", "Give a smaller count.")
    numbers = np.arange(max(0, count), n + min(0, count))
    moved = raw.with_changes(positions=np.roll(positions_of(raw), count, axis=0))
    return take_patterns(moved, numbers, f"Positions moved by {count:+d} in the list")


def positions_in(raw: RawScan, unit: Unit) -> RawScan:
    """Say in which unit the positions of the file are.

    Raises
    ------
    DataError
        If the unit is not known.
    """
    if unit == "px":
        return raw.with_changes("Positions taken as object pixels.", unit="px")
    if unit not in METRES:
        raise DataError(f"The unit '{unit}' is not known.", f"Give one of px, {', '.join(METRES)}.")
    positions = positions_of(raw) * METRES[unit]
    return raw.with_changes(f"Positions taken as {unit}.", positions=positions, unit="m", object_guess=None)


def in_photons(raw: RawScan) -> RawScan:
    """Amplitudes scaled so that their squares are photons, by the dose of the metadata.

    Without this, a step that changes the light would be undone by the dose. Amplitudes whose squares are whole numbers
    are photons already.
    """
    dose = raw.metadata.nphotons
    if dose is None or not is_amplitude(raw):
        return raw
    mean = float(np.nanmean(pattern_sums(raw)))
    bad = np.zeros(raw.size, bool) if raw.bad_pixels is None else raw.bad_pixels
    if not mean > 0 or math.isclose(dose, mean, rel_tol=1e-4):
        return raw
    if pattern_statistics(raw.patterns, bad, raw.bad_values).whole_squares:
        return raw
    factor = math.sqrt(dose / mean)
    scaled = map_rows(
        raw.patterns, lambda rows: np.asarray(rows, np.float64) * factor, raw.size, np.float32, raw.bad_values
    )
    return raw.with_changes(f"Amplitudes scaled to {dose:.4g} photons a pattern, as the file says.", patterns=scaled)


def with_dose(raw: RawScan) -> RawScan:
    """Amplitudes in photons with their mean light as the dose of the metadata; other scans unchanged."""
    if raw.metadata.nphotons is None or not is_amplitude(raw):
        return raw
    mean = float(np.nanmean(pattern_sums(raw)))
    return replace(raw, metadata=raw.metadata.model_copy(update={"nphotons": mean if mean > 0 else None}))


def set_geometry(raw: RawScan, given: Geometry) -> RawScan:
    """Set what is not None in ``given``; a detector's figure makes a stated object pixel void."""
    known = {name: value for name, value in vars(given).items() if value is not None}
    if not known:
        return raw
    geometry = raw.geometry
    if known.keys() & {"energy_eV", "distance_m", "detector_pixel_m"} and "object_pixel_m" not in known:
        whole = replace(geometry, object_pixel_m=None, **known)
        geometry = whole if whole.pixel_m(raw.size) is not None else replace(geometry, **known)
    else:
        geometry = replace(geometry, **known)
    metadata = raw.metadata
    if "object_pixel_m" in known:
        metadata = metadata.model_copy(update={"pixel_size_m": None})
    changes = ", ".join(f"{name} {value}" for name, value in known.items())
    return raw.with_changes(f"Set: {changes}.", geometry=geometry, metadata=metadata)


def mask_pixels(raw: RawScan, bad: BoolArray, source: str = "a mask") -> RawScan:
    """Add bad pixels, (H, W) bool, or bad values of single patterns, (n, H, W); masks of another size are refused.

    Raises
    ------
    DataError
        If its shape is not that of a pattern, nor that of the patterns.
    """
    if bad.shape not in (raw.size, raw.patterns.shape):
        raise DataError(
            f"The mask of shape {bad.shape} does not fit patterns of shape {raw.patterns.shape}.",
            "Give one of the size of a pattern, or one a pattern.",
        )
    found = Unmeasured(bad) if bad.ndim == 2 else Unmeasured.of_masks(bad)
    whole = found.pixels if raw.bad_pixels is None else raw.bad_pixels | found.pixels
    note = f"{int(found.pixels.sum())} bad pixels of {source}."
    if found.values is not None:
        note += f" {len(found.values.pixels)} bad values of single patterns."
    return raw.with_changes(note, bad_pixels=whole, bad_values=unite(raw.bad_values, found.values))


def mark_gaps(raw: RawScan) -> RawScan:
    """Marks of gaps, negative values, and those that are not finite become bad pixels or bad values.

    By the rule of `ptychopinn.data.bad_value_checks`. A step that sums or scales values would hide the marks from it.
    """
    findings = Findings()
    known = Unmeasured(np.zeros(raw.size, bool) if raw.bad_pixels is None else raw.bad_pixels, raw.bad_values)
    _, bad = mark_bad_values("patterns", raw.patterns, known, findings)
    return replace(
        raw,
        bad_pixels=bad.pixels if bad.pixels.any() else None,
        bad_values=bad.values,
        mended=(*raw.mended, *findings.mended),
    )


def mask_above(raw: RawScan, threshold: float) -> RawScan:
    """Pixels that exceed these counts in any pattern, and those that are not finite or negative in any, become bad."""
    limit = math.sqrt(threshold) if is_amplitude(raw) else threshold
    bad = np.zeros(raw.size, bool)
    for _, block in measured_blocks(raw):
        bad |= (~((block <= limit) & (block >= 0))).any(axis=0)
    return mask_pixels(raw, bad, f"values above {threshold:g} counts, below 0 or not finite")


def subtract_background(raw: RawScan, background: float | FloatArray) -> RawScan:
    """Subtract counts a pixel, one number or (H, W), from every pattern; what would be negative becomes 0.

    Raises
    ------
    DataError
        If its shape is not that of a pattern, or it is negative or not finite.
    """
    level = np.asarray(background, np.float64)
    if level.shape not in ((), raw.size) or not (np.isfinite(level).all() and (level >= 0).all()):
        raise DataError(
            f"The background has the shape {level.shape}, patterns are {raw.size}.", "Give counts of 0 or more a pixel."
        )
    amplitude = is_amplitude(raw)
    whole = raw.legacy_key and raw.patterns.dtype.kind in "iu"  # counts, which only the dtype says

    def subtract(rows: AnyArray) -> AnyArray:
        counts = np.asarray(rows, np.float64)
        counts = np.maximum((counts**2 if amplitude else counts) - level, 0)
        return np.sqrt(counts) if amplitude else counts

    return raw.with_changes(
        f"A background of {float(level.mean()):.6g} counts a pixel subtracted; negative counts became 0.",
        patterns=map_rows(raw.patterns, subtract, raw.size, np.float32, raw.bad_values),
        measurement=Measurement.COUNTS if raw.measurement is None and whole else raw.measurement,
    )
