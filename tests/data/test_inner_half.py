"""The inner half of patterns, and the way back: specs/22-reconstruct.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.inner_half import FACTOR, inner_half, object_on_whole, probe_on_whole
from ptychopinn.data.sizes import resample_object
from ptychopinn.forward import expected_counts
from ptychopinn.geometry import Frame
from ptychopinn.typing import AnyArray, ComplexArray


def smooth_scan(size: int, width: float = 0.09) -> ScanDataset:
    """Patterns of a smooth object under a Gaussian probe; counts are not rounded."""
    rng = np.random.default_rng(size)
    y, x = np.indices((size, size)) - (size - 1) / 2
    probe = np.exp(-(y**2 + (x + 2) ** 2) / (width * size) ** 2 * (1 - 0.8j))[None]
    probe *= np.sqrt(1e6 / (np.abs(probe) ** 2).sum())
    phase = gaussian_filter(rng.standard_normal((size + 24, size + 24)), 3) * 4
    obj = (1 + 0.1 * np.cos(phase)) * np.exp(1j * phase)
    positions = size / 2 + 4 + rng.uniform(0, 12, (6, 2))
    counts = expected_counts(obj.astype(np.complex64), probe.astype(np.complex64), positions).astype(np.float32)
    scan = ScanDataset(counts, Measurement.COUNTS, positions, probe.astype(np.complex64))
    return replace(scan, object_guess=obj.astype(np.complex64))


def misfit(obj: ComplexArray, probe: ComplexArray, scan: ScanDataset) -> float:
    """How far patterns are from what object, probe and positions say."""
    apart = np.sqrt(expected_counts(obj, probe, scan.positions)) - np.sqrt(scan.counts(slice(None)))
    return float(np.sqrt((apart**2).sum() / scan.counts(slice(None)).sum()))


@pytest.mark.parametrize("size", [64, 128])
def test_the_inner_half_is_a_scan_of_the_same_object(size: int) -> None:
    """[AUTO-011] With object pixels twice as wide; and the object goes back to whole patterns."""
    scan = smooth_scan(size)
    assert scan.object_guess is not None
    inner = inner_half(scan)
    assert inner is not None
    assert size // FACTOR == inner.N
    assert inner.object_guess is None
    assert np.shares_memory(np.asarray(inner.patterns), np.asarray(scan.patterns))
    coarse = resample_object(scan.object_guess, (0.5, 0.5))
    assert misfit(coarse, inner.probe, inner) < 0.03
    assert misfit(coarse, np.roll(inner.probe, 1, axis=-1), inner) > 0.06
    frame = Frame(scan.object_guess.shape)
    whole = object_on_whole(coarse, Frame(coarse.shape), frame)
    assert misfit(whole, scan.probe, scan) < 0.03
    moved = object_on_whole(coarse, Frame(coarse.shape, (1, 0)), Frame(frame.shape, (2, 0)))
    np.testing.assert_allclose(moved[:-4], whole[:-4], atol=1e-5)


def test_bad_pixels_and_values_are_cropped_with_their_patterns() -> None:
    """[AUTO-011]"""
    scan = smooth_scan(64)
    masks = np.zeros(scan.patterns.shape, bool)
    masks[2, 20, 40] = masks[3, 1, 1] = True
    pixels = np.zeros((64, 64), bool)
    pixels[17, 16] = pixels[5, 5] = True
    inner = inner_half(replace(scan, bad_values=BadValues.of_masks(masks), bad_pixels=pixels))
    assert inner is not None
    assert inner.bad_values is not None
    expected: AnyArray = masks[:, 16:48, 16:48]
    np.testing.assert_array_equal(inner.bad_values.masks(slice(None)), expected)
    assert np.argwhere(inner.bad_pixels).tolist() == [[1, 0]]


def test_small_patterns_and_those_with_light_outside_have_no_inner_half() -> None:
    """[AUTO-011] A tight probe has a wide far field."""
    assert inner_half(smooth_scan(32)) is None
    assert inner_half(smooth_scan(64, width=0.02)) is None


def test_a_probe_goes_back_with_the_far_field_outside_as_given() -> None:
    """[AUTO-011] A change of the inner probe changes only the inner half of the far field."""
    given = smooth_scan(64, width=0.03).probe
    inner = inner_half(replace(smooth_scan(64), probe=given))
    assert inner is not None
    np.testing.assert_allclose(probe_on_whole(inner.probe, given), given, atol=1e-3)
    changed = probe_on_whole(1.5 * inner.probe, given)
    before, after = (np.fft.fftshift(np.fft.fft2(one), axes=(-2, -1)) for one in (given, changed))
    np.testing.assert_allclose(after[:, 16:48, 16:48], 1.5 * before[:, 16:48, 16:48], atol=0.1)
    assert np.abs(before[:, :16]).max() > 100
    np.testing.assert_allclose(after[:, :16], before[:, :16], atol=0.1)
