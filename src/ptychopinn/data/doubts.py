"""Warn of scans whose errors cannot be mended, and lead to a wrong picture that explains the patterns.

These are values that are no counts, exposures that jump or drift, and positions that do not overlap.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import median_filter
from scipy.spatial import cKDTree

from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.grouping import members_by_scan
from ptychopinn.data.splits import probe_radius_px
from ptychopinn.data.subsampling import evenly_spread, neighbour_distances
from ptychopinn.typing import BoolArray, FloatArray, IntArray

_SAMPLE = 64  # patterns that show how much values vary
_MIN_PATTERNS, _MIN_PIXELS = 16, 30
_MIN_MEAN_COUNTS = 0.5  # of a pixel that is looked at
_QUANTILE, _DEVIATIONS = 0.2, 0.84  # of the pixels; how far below the mean that quantile is, in standard deviations
_MIN_VARIANCE = 0.93  # of the variance of photons there: values that vary less are no photon counts
_MIN_RUN = 8  # patterns before and after a jump
_RUNS = 16  # a scan has at most so many runs
_MIN_JUMP = 1.5
_MAX_CHANGE_SHARE, _MAX_CHANGE = 0.3, 0.4  # of the light before and after a jump: of the jump, and in its logarithm
_MIN_JUMP_SHARE = 0.7  # of a jump: close patterns on both sides of it differ by more
_CLOSE_WIDTHS = 0.5  # of the probe's width: patterns so close see the same object
_MIN_PAIRS = 5
# A drift changes the light by this factor from the first part of a scan to the last, and in each by this share of it.
_PARTS, _MIN_DRIFT, _MIN_STEP_SHARE = 6, 3.0, 0.05
_MAX_STEP_WIDTHS = 1.2  # widths of the probe: neighbours farther away do not overlap


def check_doubts(data: ScanDataset, counts: FloatArray, *, dose_is_known: bool, findings: Findings) -> None:
    """Warn of errors that lead to a wrong picture.

    Parameters
    ----------
    counts:
        (n,) photons in each pattern.
    dose_is_known:
        Whether somebody said how many photons there are; else counts are photons.
    """
    chosen = evenly_spread(len(data), _SAMPLE)
    if not dose_is_known and len(chosen) >= _MIN_PATTERNS:
        _check_spread(data.counts(chosen), data.bad_pixels, data.bad_values, findings)
    width = 2 * probe_radius_px(data.probe)
    if len(data) > 1 and width > 0:
        _check_overlap(data.positions, width, findings)
        for members in members_by_scan(data.scan_index):
            _check_exposure(data, counts, members, width, findings)


def _check_spread(counts: FloatArray, bad_pixels: BoolArray, bad_values: BadValues | None, findings: Findings) -> None:
    """Photons of a pixel vary at least by the root of their mean (Poisson), whatever the object is."""
    good = ~bad_pixels if bad_values is None else ~bad_pixels & (bad_values.times == 0)
    values = counts[:, good]
    mean = values.mean(axis=0, dtype=np.float64)
    seen = mean > _MIN_MEAN_COUNTS
    if seen.sum() < _MIN_PIXELS:
        return
    ratio = values[:, seen].var(axis=0, ddof=1, dtype=np.float64) / mean[seen]
    found, expected = float(np.quantile(ratio, _QUANTILE)), 1 - _DEVIATIONS * float(np.sqrt(2 / len(counts)))
    if found < _MIN_VARIANCE * expected:
        findings.warning(
            "patterns",
            f"The values vary less than photons do: in a fifth of the pixels their variance is under {found:.2g} times "
            f"their mean; Poisson noise would give {expected:.2g}. They are amplitudes or logarithms, averages, or in "
            "a unit of several photons.",
            "Amplitudes: --measurement amplitude; another unit: --nphotons; logarithms have to be undone.",
            "DATA-133",
        )


def step_without_overlap(positions: FloatArray, width: float) -> float | None:
    """Median distance of neighbours, pixels, if a probe of this width lights nothing twice; None if it does."""
    step = float(np.median(neighbour_distances(positions))) if len(positions) > 1 else 0.0
    return step if step > _MAX_STEP_WIDTHS * width else None


def _check_overlap(positions: FloatArray, width: float, findings: Findings) -> None:
    if (step := step_without_overlap(positions, width)) is not None:
        findings.warning(
            "xcoords, ycoords",
            f"Neighbouring positions are {step:.3g} pixels apart, and the probe is {width:.3g} wide: patterns do not "
            "overlap. Each is explained by a picture of its own, which need not be that of the sample.",
            "Check the unit of the positions: ptychopinn convert SCAN -o NEW.npz --scale-positions FACTOR, or "
            "--position-unit and --pixel-size.",
            "DATA-134",
        )


def _check_exposure(data: ScanDataset, counts: FloatArray, members: IntArray, width: float, findings: Findings) -> None:
    found = exposure_jump(counts[members], data.positions[members], width)
    if found is None:
        _check_drift(counts[members], findings)
        return
    place, factor = found
    numbers = members if data.numbers is None else data.numbers[members]
    findings.warning(
        "patterns",
        f"From pattern {numbers[place]} on there is {factor:.3g} times the light, at positions that overlap with those "
        "before: the exposure changed, not the object.",
        f"Make a scan of each part: ptychopinn convert SCAN -o NEW.npz --frames {numbers[0]}-{numbers[place - 1]}; "
        "small changes are fitted with --refine-flux.",
        "DATA-135",
    )


def _check_drift(counts: FloatArray, findings: Findings) -> None:
    """Warn if the light rises or falls from each part of a scan to the next, and much in all."""
    if len(counts) < _PARTS * _MIN_RUN:
        return
    medians = np.array([np.median(part) for part in np.array_split(counts, _PARTS)])
    steps = np.diff(np.log(np.maximum(medians, 1e-12)))
    total = float(steps.sum())
    if abs(total) > np.log(_MIN_DRIFT) and (steps * np.sign(total) > _MIN_STEP_SHARE * abs(total)).all():
        findings.warning(
            "patterns",
            f"The light {'rises' if total > 0 else 'falls'} all over the scan, from {medians[0]:.3g} photons a pattern "
            f"to {medians[-1]:.3g}: unless the sample is a wedge, the exposure drifted, and the picture shows that.",
            "Divide the counts by what a monitor of the beam saw, or make scans of parts: ptychopinn convert --frames.",
            "DATA-135",
        )


def exposure_jump(counts: FloatArray, positions: FloatArray, width: float) -> tuple[int, float] | None:
    """Where the light of a scan jumps although the object does not change, and by which factor.

    The light is steady before and after, and differs as much between patterns that are close to each other.

    Parameters
    ----------
    counts:
        (n,) photons in each pattern, in the order in which they were taken.
    positions:
        (n, 2) float64 (y, x), pixels.
    width:
        Of the probe, pixels.

    Returns
    -------
    The first pattern after it, and the factor; None without a jump.
    """
    run = max(_MIN_RUN, len(counts) // _RUNS)
    if len(counts) < 4 * run or not (counts > 0).all():
        return None
    light = np.log(counts)
    level = median_filter(light, run)
    half = run // 2 + 1
    place = int(np.abs(level[2 * half :] - level[: -2 * half]).argmax()) + half
    low, high = max(place - run, 2 * run), min(place + run, len(light) - 2 * run)
    if low > high:
        return None
    place = max(range(low, high + 1), key=lambda k: abs(_rise(light, k, run)))
    rise = _rise(light, place, run)
    before, after = (
        abs(float(np.median(light[part]) - np.median(light[near])))
        for part, near in (
            (slice(place - 2 * run, place - run), slice(place - run, place)),
            (slice(place + run, place + 2 * run), slice(place, place + run)),
        )
    )
    if abs(rise) < np.log(_MIN_JUMP) or max(before, after) > min(_MAX_CHANGE_SHARE * abs(rise), _MAX_CHANGE):
        return None
    distance, nearest = cKDTree(positions[:place]).query(positions[place:])
    pairs = distance < _CLOSE_WIDTHS * width
    differences = light[place:][pairs] - light[nearest[pairs]]
    if pairs.sum() < _MIN_PAIRS or np.sign(rise) * float(np.median(differences)) < _MIN_JUMP_SHARE * abs(rise):
        return None
    return place, float(np.exp(rise))


def _rise(light: FloatArray, place: int, run: int) -> float:
    """Difference of the means of two runs of patterns: it is largest exactly at a jump."""
    return float(light[place : place + run].mean() - light[place - run : place].mean())
