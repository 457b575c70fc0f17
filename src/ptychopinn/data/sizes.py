"""Bring patterns of any size to one that networks take: crop, pad or bin, with the right object pixel.

The object pixel of far field is ``wavelength * distance / (N * detector pixel)``. Cropping and padding patterns change
N and so the pixel; the window ``N * pixel`` stays, and the probe is resampled by cropping or padding its far field.
Binning b x b detector pixels leaves the object pixel and makes the window b times smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from ptychopinn.config.model import SUPPORTED_N
from ptychopinn.data.raw_scan import RawScan, is_amplitude, pattern_sums
from ptychopinn.data.row_blocks import map_rows
from ptychopinn.data.scan_steps import mark_gaps
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray

_CROP_SHARE = 8  # crop if the width is at most 1/8 more than a supported one
_PROBE_SHARE = 0.99  # of the probe's energy that binning must leave inside the smaller window


@dataclass(frozen=True)
class SizeRule:
    """What is done to patterns: bin, then crop or pad to ``size``."""

    size: int
    binning: int = 1


def rule_for(size: tuple[int, int], probe: ComplexArray | None) -> SizeRule:
    """The rule for patterns of (H, W).

    The larger side decides. A side at most an eighth larger than a supported width is cropped to it; any other is
    padded to the next supported width. Patterns beyond the largest one are binned by the smallest factor that brings
    them near it, if the probe still fits: 99% of its energy must lie in the smaller window. Otherwise they are cropped.
    """
    longest = max(size)
    largest = max(SUPPORTED_N)
    limit = largest + largest // _CROP_SHARE
    if longest > limit:
        binning = -(-longest // limit)
        if probe is None or inside(probe, tuple(n / binning for n in size)) >= _PROBE_SHARE:
            return SizeRule(_width_for(-(-longest // binning)), binning)
        return SizeRule(largest)
    return SizeRule(_width_for(longest))


def _width_for(longest: int) -> int:
    for width in sorted(SUPPORTED_N):
        if longest <= width + width // _CROP_SHARE:
            return width
    return max(SUPPORTED_N)


def inside(probe: ComplexArray, size: tuple[float, ...]) -> float:
    """Share of a (modes, H, W) probe's energy inside a window of (h, w) pixels around its centre."""
    energy = (np.abs(probe.astype(np.complex128)) ** 2).sum(axis=0)
    within = [np.abs(np.arange(n) - (n - 1) / 2) < w / 2 for n, w in zip(energy.shape, size, strict=True)]
    total = float(energy.sum())
    return float(energy[np.ix_(*within)].sum()) / total if total > 0 else 1.0


def fit_size(raw: RawScan) -> RawScan:
    """A scan with patterns of a supported size, by `rule_for`; unchanged if they have one. What was done is a note."""
    height, width = raw.size
    if height == width and height in SUPPORTED_N:
        return raw
    rule = rule_for(raw.size, raw.probe if raw.probe is not None and raw.probe.shape[1:] == raw.size else None)
    raw = raw.with_changes(
        f"The patterns are {height} x {width}; networks take N of {', '.join(map(str, SUPPORTED_N))}."
    )
    if rule.binning > 1:
        raw = bin_patterns(raw, rule.binning)
    return resize_patterns(raw, rule.size)


def resize_patterns(raw: RawScan, size: int) -> RawScan:
    """Crop or pad patterns to N x N around their centre ``[H//2, W//2]``.

    Padded pixels were not measured and are bad pixels. Positions, probe, object and pixel size change with the object
    pixel; known patches are left out.

    Raises
    ------
    DataError
        If the size is not positive.
    """
    if size < 1:
        raise DataError(f"Patterns of {size} pixels were asked for.", "Give a positive size.")
    height, width = raw.size
    if (height, width) == (size, size):
        return raw
    patterns = map_rows(raw.patterns, lambda rows: place_centred(rows, (size, size)), (size, size), raw.patterns.dtype)
    measured = place_centred(np.ones(raw.size, bool), (size, size))
    bad = ~measured if raw.bad_pixels is None else place_centred(raw.bad_pixels, (size, size)) | ~measured
    scales = (size / height, size / width)
    verb = {(True, True): "cropped", (False, False): "padded"}.get((height > size, width > size), "cropped and padded")
    note = (
        f"Patterns {verb} from {height} x {width} to {size} x {size} around the centre: object pixels become "
        f"{width / size:.6g} times as wide" + ("." if height == width else f", {height / size:.6g} times as high.")
    )
    if not measured.all():
        note += f" {int((~measured).sum())} pixels that were not measured are bad pixels."
    values = raw.bad_values
    if values is not None:
        values = values.changed(lambda masks: place_centred(masks, (size, size)), (size, size))
    changed = raw.with_changes(
        note, patterns=patterns, bad_pixels=bad if bad.any() else None, bad_values=values, patches=None
    )
    if raw.probe is not None and raw.probe.shape[1:] == raw.size:
        changed = changed.with_probe(lambda probe: resample_probe(probe, (size, size)))
    return _rescale(_with_dose(changed, raw), scales)


def _with_dose(changed: RawScan, before: RawScan) -> RawScan:
    """The mean photons of the metadata, less the share of the light that was cropped."""
    dose = before.metadata.nphotons
    if dose is None or (changed.size[0] >= before.size[0] and changed.size[1] >= before.size[1]):
        return changed
    left, whole = (float(np.nansum(pattern_sums(scan))) for scan in (changed, before))
    share = left / whole if whole > 0 and left > 0 else 1.0
    return replace(changed, metadata=before.metadata.model_copy(update={"nphotons": dose * share}))


def bin_patterns(raw: RawScan, factor: int) -> RawScan:
    """Sum blocks of b x b detector pixels; counts are kept.

    Patterns are first cropped to a multiple of b around their centre. A block with a bad pixel is bad, as
    is one with a mark of a gap; one with a saturated pixel is saturated. The probe is cut
    to the smaller window, and moved by half a detector pixel in far field, as the blocks are. Known patches are left
    out.

    Raises
    ------
    DataError
        If the factor is not positive or larger than a pattern.
    """
    height, width = raw.size
    if not 1 <= factor <= min(height, width):
        raise DataError(f"Patterns of {height} x {width} cannot be binned by {factor}.", "Give a factor of 2 or so.")
    if factor == 1:
        return raw
    raw = mark_gaps(raw)
    if height % factor or width % factor:
        raw = _crop_rectangle(raw, (height - height % factor, width - width % factor))
        height, width = raw.size
    shape = (height // factor, width // factor)
    amplitude = is_amplitude(raw)
    kind: np.dtype[Any] = (
        np.dtype(np.float32) if amplitude or raw.patterns.dtype.kind == "f" else _sum_dtype(raw.patterns, factor)
    )
    good = None if raw.bad_pixels is None else ~raw.bad_pixels
    most = np.iinfo(raw.patterns.dtype).max if kind.kind in "iu" and raw.patterns.dtype.kind != "b" else None

    def summed(rows: AnyArray) -> AnyArray:
        values = np.asarray(rows, np.float64 if kind.kind == "f" else kind)
        values = values**2 if amplitude else values
        values = values if good is None else np.where(good, values, 0)
        blocks = values.reshape(-1, shape[0], factor, shape[1], factor)
        sums = blocks.sum(axis=(2, 4))
        if most is not None:  # a saturated pixel saturates its block
            sums[(blocks == most).any(axis=(2, 4))] = np.iinfo(kind).max
        return np.asarray(np.sqrt(sums) if amplitude else sums)

    def any_of(mask: BoolArray) -> BoolArray:
        return np.asarray(mask.reshape(*mask.shape[:-2], shape[0], factor, shape[1], factor).any(axis=(-3, -1)))

    bad = None if raw.bad_pixels is None else any_of(raw.bad_pixels)
    geometry, pixel = raw.geometry, raw.geometry.detector_pixel_m
    changed = raw.with_changes(
        f"Patterns binned {factor} x {factor} to {shape[0]} x {shape[1]}, counts kept; object pixels stay, the window "
        f"is {factor} times smaller.",
        patterns=map_rows(raw.patterns, summed, shape, kind, raw.bad_values),
        bad_pixels=bad if bad is not None and bad.any() else None,
        bad_values=None if raw.bad_values is None else raw.bad_values.changed(any_of, shape),
        patches=None,
        metadata=raw.metadata.model_copy(update={"saturation_counts": None}),
        geometry=replace(geometry, detector_pixel_m=None if pixel is None else (pixel[0] * factor, pixel[1] * factor)),
    )
    if raw.probe is None or raw.probe.shape[1:] != (height, width):
        return changed
    share = inside(raw.probe, shape)
    warnings = raw.warnings
    if share < _PROBE_SHARE:
        warnings += (
            f"Only {share:.1%} of the probe's light lies inside the smaller window: binning blurs the patterns.",
        )
    return replace(changed.with_probe(lambda probe: _narrow_probe(probe, shape, factor)), warnings=warnings)


def _sum_dtype(patterns: AnyArray, factor: int) -> np.dtype[Any]:
    """The unsigned or signed integer that holds sums of blocks."""
    bits = 8 * patterns.dtype.itemsize + math.ceil(2 * math.log2(factor))
    wide = next((w for w in (8, 16, 32, 64) if w >= bits), 64)
    return np.dtype(f"{'i' if patterns.dtype.kind == 'i' else 'u'}{wide // 8}")


def _crop_rectangle(raw: RawScan, size: tuple[int, int]) -> RawScan:
    """Crop patterns to (h, w) around their centre; as `resize_patterns`."""
    height, width = raw.size
    changed = raw.with_changes(
        f"Patterns cropped from {height} x {width} to {size[0]} x {size[1]}.",
        patterns=map_rows(raw.patterns, lambda rows: place_centred(rows, size), size, raw.patterns.dtype),
        bad_pixels=None if raw.bad_pixels is None else place_centred(raw.bad_pixels, size),
        bad_values=None
        if raw.bad_values is None
        else raw.bad_values.changed(lambda masks: place_centred(masks, size), size),
        patches=None,
    )
    if raw.probe is not None and raw.probe.shape[1:] == raw.size:
        changed = changed.with_probe(lambda probe: resample_probe(probe, size))
    return _rescale(changed, (size[0] / height, size[1] / width))


def place_centred(array: npt.NDArray[np.generic], size: tuple[int, int]) -> AnyArray:
    """(..., H, W) cropped or padded with zeros to (..., h, w), pixel ``[H//2, W//2]`` going to ``[h//2, w//2]``."""
    placed = np.zeros((*array.shape[:-2], *size), array.dtype)
    source, target = [], []
    for old, new in zip(array.shape[-2:], size, strict=True):
        offset = old // 2 - new // 2
        low, high = max(offset, 0), min(old, offset + new)
        source.append(slice(low, high))
        target.append(slice(low - offset, high - offset))
    placed[..., target[0], target[1]] = array[..., source[0], source[1]]
    return placed


def measured_box(bad: BoolArray) -> tuple[slice, slice]:
    """The rectangle of an (N, N) mask that was measured, if it was padded around the centre; else all of it.

    Padding leaves good pixels in a rectangle in the middle, with good corners; other masks are hardly like that.
    """
    box = []
    for axis in (1, 0):
        good = np.flatnonzero(~bad.all(axis=axis))
        if not len(good):
            return slice(None), slice(None)
        box.append((int(good[0]), int(good[-1]) + 1))
    corners = np.ix_(*([low, high - 1] for low, high in box))
    centred = all(abs(low + high - n) <= 1 for (low, high), n in zip(box, bad.shape, strict=True))
    if not centred or bad[corners].any():
        return slice(None), slice(None)
    return slice(*box[0]), slice(*box[1])


def resample_probe(probe: ComplexArray, size: tuple[int, int]) -> ComplexArray:
    """A (modes, H, W) probe on (h, w) pixels in the same window: its far field is cropped or padded.

    Probes are centred on their window, ``(N - 1) / 2``, so each size has its own half pixel; transforms are
    unitary.
    """
    far = np.fft.fftshift(np.fft.fft2(np.asarray(probe, np.complex128), norm="ortho"), axes=(-2, -1))
    far = far * _half_pixels(probe.shape[-2:], -1.0)
    far = place_centred(far, size) * _half_pixels(size, 1.0)
    resampled: ComplexArray = np.fft.ifft2(np.fft.ifftshift(far, axes=(-2, -1)), norm="ortho").astype(np.complex64)
    return resampled


def _half_pixels(size: tuple[int, ...], sign: float) -> ComplexArray:
    """Phases of a shift by half a pixel along both axes, DC at ``[N//2, N//2]``."""
    ramps = [np.exp(sign * 1j * np.pi * (np.arange(n) - n // 2) / n) for n in size]
    product: ComplexArray = ramps[0][:, None] * ramps[1]
    return product


def _narrow_probe(probe: ComplexArray, size: tuple[int, int], factor: int) -> ComplexArray:
    """The middle (h, w) of a (modes, H, W) probe, its far field at the centres of blocks of ``factor`` pixels."""
    narrow = np.asarray(probe, np.complex128)
    for axis, small in zip((-2, -1), size, strict=True):
        old = narrow.shape[axis]
        # DC of the blocks is that of old pixels b*(h//2) .. b*(h//2)+b-1; its centre is this far from the old DC.
        offset = factor * (small // 2) + (factor - 1) / 2 - old // 2
        places = np.arange(old) - (old - 1) / 2
        ramp = np.exp(-2j * np.pi * offset * places / old)
        narrow = narrow * (ramp[:, None] if axis == -2 else ramp)
        start = (old - small) / 2
        if start != int(start):  # the window's middle lies between pixels: move by half of one
            k = np.fft.fftfreq(old)
            shift = np.exp(2j * np.pi * k * 0.5)
            narrow = np.fft.ifft(np.fft.fft(narrow, axis=axis) * (shift[:, None] if axis == -2 else shift), axis=axis)
        narrow = np.take(narrow, np.arange(int(start), int(start) + small), axis=axis)
    found: ComplexArray = narrow.astype(np.complex64)
    return found


def _rescale(raw: RawScan, scales: tuple[float, float]) -> RawScan:
    """Positions, object and pixel size for object pixels that are ``scales`` times as many in each axis."""
    changes: dict[str, object] = {}
    if (pixel := raw.geometry.object_pixel_m) is not None:
        changes["geometry"] = replace(raw.geometry, object_pixel_m=(pixel[0] / scales[0], pixel[1] / scales[1]))
    if (stated := raw.metadata.pixel_size_m) is not None:
        changes["metadata"] = raw.metadata.model_copy(
            update={"pixel_size_m": stated / scales[1] if math.isclose(*scales, rel_tol=1e-3) else None}
        )
    if raw.positions is not None and raw.unit == "px":
        changes["positions"] = raw.positions * np.array(scales)
    if raw.object_guess is not None:
        changes["object_guess"] = resample_object(raw.object_guess, scales)
    return raw.with_changes(**changes)  # type: ignore[arg-type]


def resample_object(obj: ComplexArray, scales: tuple[float, float]) -> ComplexArray:
    """An (h, w) object on pixels that are ``scales`` times as many; pixel (0, 0) stays where it is."""
    return resample_placed(obj, (0, 0), scales)[0]


def resample_placed(
    obj: ComplexArray, origin: tuple[int, int], scales: tuple[float, float]
) -> tuple[ComplexArray, tuple[int, int]]:
    """An object on pixels that are ``scales`` times as many, by cubic splines.

    Parameters
    ----------
    obj, origin:
        (h, w) complex, and its pixel (0, 0) in the frame of the positions.
    scales:
        (y, x) new pixels in one old pixel. Position p in old pixels is p * scale in new ones.

    Returns
    -------
    The object at the whole new pixels that lie inside it, and its pixel (0, 0) in the new frame.
    """
    low = [math.ceil(start * scale - 1e-9) for start, scale in zip(origin, scales, strict=True)]
    ends = zip(origin, obj.shape, scales, strict=True)
    high = [math.floor((start + n - 1) * scale + 1e-9) for start, n, scale in ends]
    axes = zip(low, high, origin, scales, strict=True)
    places = [np.arange(first, max(last, first) + 1) / scale - start for first, last, start, scale in axes]
    grid = np.meshgrid(*places, indexing="ij")
    values = np.asarray(obj, np.complex128)
    resampled: ComplexArray = (
        map_coordinates(values.real, grid, order=3, mode="nearest")
        + 1j * map_coordinates(values.imag, grid, order=3, mode="nearest")
    ).astype(np.complex64)
    return resampled, (low[0], low[1])
