"""Choose the patterns of a scan before it is checked, or join several scans.

As in `ptychopinn.data.scan_steps`, every function takes a `ptychopinn.data.raw_scan.RawScan` and returns another one
with a note of what was done; none changes its argument.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ptychopinn.data.bad_values import join_bad_values
from ptychopinn.data.raw_scan import RawScan, is_amplitude, pattern_sums, positions_of, to_pixels
from ptychopinn.data.row_blocks import pick_rows, stack_rows
from ptychopinn.data.subsampling import neighbour_distances
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray, BoolArray, FloatArray, IntArray

_OUTLIER_SPREADS = 8.0  # robust standard deviations
_FAR_SPREADS = 30.0  # of distances to the nearest position
_MAD = 1.4826  # standard deviations in a median absolute deviation of a normal distribution


def take_patterns(raw: RawScan, numbers: IntArray, what: str = "Patterns selected") -> RawScan:
    """The patterns of these numbers, in this order, without a copy where they are consecutive.

    Raises
    ------
    DataError
        If there are none, or a number is not there.
    """
    n, index = len(raw.patterns), np.asarray(numbers, np.int64)
    if index.ndim != 1 or not len(index) or index.min() < 0 or index.max() >= n:
        raise DataError(f"{what}: {len(index)} of {n} patterns.", f"Select at least one, from 0 to {n - 1}.")

    def part(array: AnyArray | None) -> AnyArray | None:
        return None if array is None else pick_rows(array, index)

    return raw.with_changes(
        f"{what}: {len(index)} of {n}.",
        patterns=pick_rows(raw.patterns, index),
        positions=part(raw.positions),
        patches=part(raw.patches),
        scan_index=part(raw.scan_index),
        bad_values=None if raw.bad_values is None else raw.bad_values.select(index),
        probe_variation=None if raw.probe_variation is None else raw.probe_variation.select(index),
    )


def take_region(raw: RawScan, region: tuple[float, float, float, float]) -> RawScan:
    """Patterns with positions in (y0, y1, x0, x1), in the unit of the positions.

    Raises
    ------
    DataError
        If there are none; it says where the positions are.
    """
    positions = positions_of(raw)
    y0, y1, x0, x1 = region
    y, x = positions.T
    numbers = np.flatnonzero((y >= y0) & (y <= y1) & (x >= x0) & (x <= x1))
    if not len(numbers):
        low, high = np.nanmin(positions, axis=0), np.nanmax(positions, axis=0)
        raise DataError(
            f"No position lies in the region {region}; they are from {low.tolist()} to {high.tolist()} {raw.unit}.",
            "Give y0,y1,x0,x1 inside.",
        )
    return take_patterns(raw, numbers, "Patterns in the region")


def drop_outliers(raw: RawScan) -> RawScan:
    """Leave out patterns with positions that are lost or a light that is far off, by robust statistics.

    A position is lost if it is not finite, or farther from its nearest neighbour than the median by 30 robust standard
    deviations. A pattern's light is off if it differs from the median of its scan by 8. A pattern with values that are
    not finite outside the bad pixels is left out too.
    """
    keep = np.ones(len(raw.patterns), bool)
    sums = pattern_sums(raw)
    index = np.zeros(len(keep), np.int64) if raw.scan_index is None else raw.scan_index
    for scan in np.unique(index):
        members = np.flatnonzero(index == scan)
        keep[members] &= _usual(sums[members], _OUTLIER_SPREADS)
    if raw.positions is not None:
        keep &= np.isfinite(raw.positions).all(axis=1)
        there = np.flatnonzero(keep)
        if len(there) > 2:
            keep[there] &= _near(raw.positions[there])
    dropped = np.flatnonzero(~keep)
    numbers = ", ".join(map(str, dropped[:10].tolist())) + (", ..." if len(dropped) > 10 else "")
    if not len(dropped):
        return raw.with_changes("No outliers among the patterns.")
    return take_patterns(raw, np.flatnonzero(keep), f"Patterns that are no outliers (left out: {numbers})")


def _usual(values: FloatArray, spreads: float) -> BoolArray:
    """Values within so many robust standard deviations of their median; at least the noise of counts is allowed."""
    finite = np.isfinite(values)
    if not finite.any():
        return finite
    middle = float(np.median(values[finite]))
    spread = max(_MAD * float(np.median(np.abs(values[finite] - middle))), math.sqrt(max(middle, 0.0)), 0.01 * middle)
    found: BoolArray = finite & (np.abs(np.where(finite, values, np.inf) - middle) <= spreads * spread)
    return found


def _near(positions: FloatArray) -> BoolArray:
    distance = neighbour_distances(positions)
    middle = float(np.median(distance))
    spread = max(_MAD * float(np.median(np.abs(distance - middle))), 0.1 * middle)
    return np.asarray(distance <= middle + _FAR_SPREADS * spread)


def join_scans(scans: Sequence[RawScan]) -> RawScan:
    """Scans of one object in one frame as one scan; ``scan_index`` says which pattern is of which.

    Positions are in pixels of the first scan; others are rescaled if their object pixel is known and differs. The probe
    and the object guess are those of the first, without a variation; bad pixels of any are bad.

    Raises
    ------
    DataError
        If there is none, or their sizes, domains or units differ.
    """
    if not scans:
        raise DataError("There are no scans to join.", "Give at least one.")
    if len(scans) == 1:
        return scans[0]
    scans = [to_pixels(scan) for scan in scans]
    first = scans[0]
    for scan in scans[1:]:
        if scan.size != first.size or is_amplitude(scan) != is_amplitude(first) or scan.unit != first.unit:
            raise DataError(
                f"'{scan.name}' ({scan.size}, {'amplitudes' if is_amplitude(scan) else 'counts'}, {scan.unit}) cannot "
                f"be joined to '{first.name}' ({first.size}, {'amplitudes' if is_amplitude(first) else 'counts'}, "
                f"{first.unit}).",
                "Convert them to one size, domain and unit first.",
            )
    index: list[IntArray] = []
    start = 0
    for scan in scans:
        own = np.zeros(len(scan.patterns), np.int64) if scan.scan_index is None else scan.scan_index
        _, numbers = np.unique(own, return_inverse=True)
        index.append(numbers + start)
        start += int(numbers.max()) + 1
    masks = [scan.bad_pixels for scan in scans if scan.bad_pixels is not None]
    return replace(
        first,
        patterns=stack_rows([scan.patterns for scan in scans]),
        positions=np.concatenate([positions_of(scan) * _ratio(scan, first) for scan in scans]),
        scan_index=np.concatenate(index),
        patches=None,
        probe_variation=None,
        bad_pixels=np.any(masks, axis=0) if masks else None,
        bad_values=join_bad_values([(len(scan.patterns), scan.bad_values) for scan in scans], first.size),
        mended=tuple(problem for scan in scans for problem in scan.mended),
        notes=(*first.notes, f"{len(scans)} scans joined: {', '.join(scan.name for scan in scans)[:300]}."),
        warnings=(*first.warnings, *_lost_variation(scans)),
    )


def _lost_variation(scans: Sequence[RawScan]) -> tuple[str, ...]:
    if all(scan.probe_variation is None for scan in scans):
        return ()
    return ("How the probe varies over each scan is left out: the scans joined have the mean probe of the first.",)


def _ratio(scan: RawScan, first: RawScan) -> FloatArray:
    """(2,) object pixels of the first scan in one of this scan."""
    own, other = scan.geometry.object_pixel_m, first.geometry.object_pixel_m
    return np.ones(2) if own is None or other is None else np.array(own) / np.array(other)
