"""Defects of scans: pixels, patterns and positions that are no measurement are marked, left out or refused.

The contract of files, messages of streams and arrays in Python use these rules, so all give the same findings.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter, median_filter, minimum_filter, rank_filter

from ptychopinn.data.bad_values import Unmeasured
from ptychopinn.data.dataset import ScanMetadata
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.grouping import members_by_scan
from ptychopinn.data.pattern_checks import preview
from ptychopinn.data.scaling import centre_of_mass
from ptychopinn.data.subsampling import neighbour_distances
from ptychopinn.forward import far_field
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray, IntArray

_MAX_SHARE = 0.5  # of pixels that may be dead or hot
_SURE_COUNTS = 50.0  # counts of all patterns that neighbours of a dead pixel have: e^-50 for none by chance
_BLUR_PX = 2.0  # of the neighbours of a dead pixel
_FEW_NEIGHBOURS = 0.2  # of the neighbours: where fewer have counts, their mean says little
_AROUND_PX = 3  # the far field is taken from this square
_HOT_RATIO = 20.0  # times the median of the neighbourhood, and times what the probe puts there
_ALONE_IN_SQUARE = 3  # the third brightest of 3 x 3 pixels is no longer bright: a peak of light is wider
_HOT_SHARE = 1e-3  # of all counts: less does no harm
_BRIGHT = 20.0  # times the median pattern
_DIM = 0.01  # of the median pattern
_SURE_MEDIAN = 50.0  # counts of the median pattern: an empty one is no chance
_MAX_OUTLIERS = 0.05  # of all patterns that are too bright; more are no outliers
_MAX_DARK = 0.5
_MAX_LOST = 0.1
_ALONE = 10.0  # times the median distance of neighbours
_FAR_APART = 2.0  # widths of the probe: neighbours that do not overlap at all
_MIN_POSITIONS = 9


def dead_pixels(mean_counts: FloatArray, count: int, bad_pixels: BoolArray, probe: ComplexArray | None) -> BoolArray:
    """Pixels without a count in any of ``count`` patterns, where there must be some.

    There must be counts where neighbours have them and the probe's far field is bright around, and in a whole row or
    column between bright ones.

    Parameters
    ----------
    mean_counts:
        (N, N) mean counts, 0 at bad pixels.
    probe:
        (modes, N, N) complex, if it is known.
    """
    dark = (mean_counts <= 0) & ~bad_pixels
    if not dark.any():
        return dark
    dead = np.zeros_like(dark)
    if probe is not None:
        weight = gaussian_filter((mean_counts > 0).astype(np.float64), _BLUR_PX)
        neighbours = gaussian_filter(mean_counts.astype(np.float64), _BLUR_PX) / np.maximum(weight, 1e-12)
        light = minimum_filter(_light(probe, mean_counts), size=_AROUND_PX) * float(mean_counts.sum())
        dead |= dark & (weight > _FEW_NEIGHBOURS) & (np.minimum(neighbours, light) * count > _SURE_COUNTS)
    for axis in (0, 1):
        lit = mean_counts.sum(axis=1 - axis) * count > _SURE_COUNTS
        empty = ((mean_counts <= 0) | bad_pixels).all(axis=1 - axis)
        between = np.logical_or.accumulate(lit) & np.logical_or.accumulate(lit[::-1])[::-1]
        lines = empty & between
        dead |= dark & (lines[:, None] if axis == 0 else lines[None, :])
    return dead


def _light(probe: ComplexArray, pattern: FloatArray) -> FloatArray:
    """The probe's far field, (N, N) of sum 1, moved by whole pixels to where the patterns lie."""
    light = (np.abs(far_field(probe.astype(np.complex128))) ** 2).sum(axis=0)
    seen = np.where(pattern > 0, light, 0.0)  # gaps must not move its centre
    if seen.any() and pattern.any():
        offset = np.rint(centre_of_mass(pattern) - centre_of_mass(seen)).astype(int)
        light = np.roll(light, offset, (0, 1))
    found: FloatArray = light / max(float(light.sum()), 1e-300)
    return found


def hot_pixels(mean: FloatArray, probe: ComplexArray | None) -> BoolArray:
    """Pixels far brighter than their neighbours, with a share of the counts, where the probe puts no such peak.

    Parameters
    ----------
    mean:
        (N, N) mean of the values.
    probe:
        (modes, N, N) complex, if it is known.
    """
    total = float(mean.sum())
    hot: BoolArray = mean > _HOT_SHARE * total
    if hot.any():
        hot &= mean > _HOT_RATIO * rank_filter(mean, -_ALONE_IN_SQUARE, size=3)
    if hot.any():  # seldom, and the median takes long
        hot &= mean > _HOT_RATIO * median_filter(mean, size=5)
    if probe is None or not hot.any():
        return hot
    size = len(mean)
    calm = float(mean[~hot].sum())
    light = _light(probe, np.where(hot, 0.0, mean))
    expected = maximum_filter(light, size=_AROUND_PX) * (calm if calm > 0 else total)
    middle = np.hypot(*(np.indices((size, size)) - size // 2)) <= 2  # the direct beam
    surprising: BoolArray = hot & (mean > _HOT_RATIO * expected) & ~middle
    return surprising


def outlier_patterns(counts: FloatArray, scan_index: IntArray) -> tuple[IntArray, IntArray]:
    """Numbers of patterns far brighter than the others of their scan, and of those that are empty or nearly so.

    Neither is named if there are too many of them, or too few counts to tell.
    """
    bright, dark = np.zeros(len(counts), bool), np.zeros(len(counts), bool)
    for members in members_by_scan(scan_index):
        here = counts[members]
        lit = here[here > 0]
        if len(lit) == 0:
            continue
        middle = float(np.median(lit))
        is_bright = here > _BRIGHT * middle
        is_dark = (here < _DIM * middle) & (middle > _SURE_MEDIAN)
        if 0 < is_bright.sum() <= max(_MAX_OUTLIERS * len(here), 1) and len(here) >= _MIN_POSITIONS:
            bright[members] = is_bright
        if 0 < is_dark.sum() <= _MAX_DARK * len(here):
            dark[members] = is_dark
    return np.flatnonzero(bright), np.flatnonzero(dark)


def lost_positions(positions: FloatArray, size: int) -> IntArray:
    """Numbers of positions that are not finite, or far from all others; none if there are too many.

    Parameters
    ----------
    positions:
        (n, 2) float64 (y, x), pixels.
    size:
        Width of a pattern: a position whose window touches another one is not lost.
    """
    lost: BoolArray = np.asarray(~np.isfinite(positions).all(axis=1), bool)
    known = np.flatnonzero(~lost)
    if len(known) >= _MIN_POSITIONS:
        distance = neighbour_distances(positions[known])
        far = distance > max(_ALONE * float(np.median(distance)), size)
        lost[known] |= far
    return np.flatnonzero(lost) if lost.mean() <= _MAX_LOST else np.zeros(0, np.int64)


def check_unit(positions: FloatArray, probe_width_px: float, metadata: ScanMetadata, findings: Findings) -> None:
    """Refuse positions that are in metres or another unit of length instead of object pixels.

    Parameters
    ----------
    positions:
        (n, 2) float64 (y, x), finite.
    probe_width_px:
        Full width at half maximum of the probe.
    """
    key = "xcoords, ycoords"
    span = float(np.ptp(positions, axis=0).max()) if len(positions) else 0.0
    if len(positions) < 2 or span == 0:
        return
    distances = neighbour_distances(positions)
    step = float(np.median(distances[distances > 0])) if (distances > 0).any() else span
    unit = _unit_of(step, probe_width_px, metadata.pixel_size_m)
    tiny = span < 1 or (len(positions) >= _MIN_POSITIONS and span < probe_width_px / 4 and step < 1)
    huge = step > _FAR_APART * probe_width_px and unit is not None
    if not (tiny or huge):
        return
    if unit is None:
        remedy = "Give them in object pixels, not in metres: ptychopinn convert --scale-positions 1/PIXEL_SIZE."
        guess = ""
    else:
        name, factor = unit
        remedy = f"ptychopinn convert SCAN -o NEW.npz --scale-positions {factor:.6g}"
        guess = f" In {name}, with the pixel size of _metadata, they span {span * factor:.4g} pixels."
    findings.error(
        key,
        f"All {len(positions)} positions lie within {span:.3g} pixels, {step:.3g} from neighbour to neighbour; the "
        f"probe is {probe_width_px:.3g} pixels wide.{guess}",
        remedy,
        "DATA-122",
    )


def _unit_of(step: float, width: float, pixel_size_m: float | None) -> tuple[str, float] | None:
    """The unit in which a step is a sensible share of the probe's width, and pixels per unit."""
    if pixel_size_m is None:
        return None
    for name, metres in (("metres", 1.0), ("millimetres", 1e-3), ("micrometres", 1e-6), ("nanometres", 1e-9)):
        factor = metres / pixel_size_m
        if 0.02 * width < step * factor < 1.5 * width:
            return name, factor
    return None


def mostly_bad(bad: Unmeasured, count: int) -> IntArray:
    """Numbers of patterns of which more than half of the pixels that others measured are bad."""
    if bad.values is None:
        return np.zeros(0, np.int64)
    found: IntArray = np.flatnonzero(2 * np.diff(bad.values.offsets) > int((~bad.pixels).sum()))
    return found if len(found) < count else np.zeros(0, np.int64)


def leave_out(
    counts: FloatArray, positions: FloatArray | None, scan_index: IntArray, bad: Unmeasured, findings: Findings
) -> IntArray:
    """Name patterns that are outliers, that measured little, or that have no position.

    Parameters
    ----------
    counts:
        (n,) counts of each pattern.
    positions:
        (n, 2) float64 (y, x), pixels; None if they were refused.
    bad:
        What the patterns did not measure.

    Returns
    -------
    (k,) int64, ascending: the patterns that stay.
    """
    bright, dark = outlier_patterns(counts, scan_index)
    lost = np.zeros(0, np.int64) if positions is None else lost_positions(positions, len(bad.pixels))
    n = len(counts)
    blind = mostly_bad(bad, n)
    for numbers, key, what, code in (
        (bright, "patterns", f"hold over {_BRIGHT:g} times the median counts", "DATA-120"),
        (dark, "patterns", f"are empty or hold under {_DIM:.0%} of the median counts", "DATA-120"),
        (blind, "patterns", "have bad values in over half of the pixels", "DATA-132"),
        (lost, "xcoords, ycoords", "have a position that is not finite or far from all others", "DATA-121"),
    ):
        if len(numbers):
            findings.warning(
                key, f"{len(numbers)} of {n} patterns {what}: {preview(numbers)}; they are left out.", "", code
            )
    stays = np.ones(n, bool)
    for numbers in (bright, dark, blind, lost):
        stays[numbers] = False
    return np.flatnonzero(stays)


def mark_bad_pixels(
    mean_counts: FloatArray, count: int, bad_pixels: BoolArray, probe: ComplexArray | None, findings: Findings
) -> BoolArray:
    """Add dead and hot pixels to the bad ones, (N, N); parameters as in `dead_pixels` and `hot_pixels`."""
    hot = hot_pixels(mean_counts, probe)
    calm = np.where(hot, 0.0, mean_counts)
    found = bad_pixels
    for pixels, what, code in (
        (hot, f"are over {_HOT_RATIO:g} times brighter than their neighbours", "DATA-124"),
        (dead_pixels(calm, count, bad_pixels | hot, probe), "are 0 in every pattern amid light", "DATA-123"),
    ):
        if pixels.any() and pixels.mean() < _MAX_SHARE:
            where = tuple(np.argwhere(pixels)[0].tolist())
            findings.warning(
                "patterns",
                f"{int(pixels.sum())} pixels {what}, such as (y, x) {where}; they join bad_pixels.",
                "",
                code,
            )
            found = found | pixels
    return found
