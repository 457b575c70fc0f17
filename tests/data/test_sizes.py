"""Patterns of any size: cropped, padded and binned with the physics kept: specs/01-data.md."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptychopinn.config.model import SUPPORTED_N
from ptychopinn.data.checks import check_scan
from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.io import read_scan
from ptychopinn.data.raw_scan import Geometry, RawScan
from ptychopinn.data.sizes import (
    bin_patterns,
    fit_size,
    measured_box,
    place_centred,
    resample_probe,
    resize_patterns,
    rule_for,
)
from ptychopinn.forward import expected_counts


def smooth_probe(size: int, width: float = 0.09, shift: float = 0.0) -> Any:
    """(1, N, N): a Gaussian with curvature, a little off the centre of its window."""
    y, x = np.indices((size, size)) - (size - 1) / 2
    r2 = (y - shift) ** 2 + (x + 2 * shift) ** 2
    probe = np.exp(-r2 / (width * size) ** 2 * (1 - 0.8j))
    return (probe * np.sqrt(1e6 / (np.abs(probe) ** 2).sum()))[None].astype(np.complex64)


def smooth_scan(size: int, n: int = 6, width: float = 0.09) -> RawScan:
    """A scan of a smooth object, so that little light reaches the edge of the patterns; counts are not rounded."""
    rng = np.random.default_rng(size)
    positions = size / 2 + 4 + rng.uniform(0, 12, (n, 2))
    shape = (int(size + 24), int(size + 24))
    phase = gaussian_filter(rng.standard_normal(shape), 3) * 4
    obj = ((0.9 + 0.1 * np.cos(phase)) * np.exp(1j * phase)).astype(np.complex64)
    probe = smooth_probe(size, width, shift=1.0)
    counts = expected_counts(obj, probe, positions).astype(np.float32)
    return RawScan(
        counts, positions, probe=probe, object_guess=obj, geometry=Geometry(object_pixel_m=(1e-8, 1e-8)), name="smooth"
    )


def misfit(raw: RawScan) -> float:
    """How far the patterns are from what probe, object and positions say, where they were measured."""
    good = np.ones(raw.size, bool) if raw.bad_pixels is None else ~raw.bad_pixels
    said = expected_counts(raw.object_guess, raw.probe, raw.positions)
    apart = np.sqrt(said[:, good]) - np.sqrt(raw.patterns[:, good])
    return float(np.sqrt((apart**2).sum() / raw.patterns[:, good].sum()))


@pytest.mark.parametrize(("size", "wanted"), [(100, 128), (104, 128), (192, 256), (65, 64), (99, 128)])
def test_the_physics_is_the_same_on_the_new_pixels(size: int, wanted: int) -> None:
    """[DATA-210] Probe, positions and object at their new pixels explain the patterns as before."""
    raw = smooth_scan(size)
    assert misfit(raw) < 1e-3
    fitted = fit_size(raw)
    assert fitted.size == (wanted, wanted)
    assert misfit(fitted) < 0.02
    moved = fitted.with_changes(positions=fitted.positions + 0.5)
    assert misfit(moved) > 1.5 * misfit(fitted), "half a pixel would not be noticed"
    assert fitted.geometry.object_pixel_m == pytest.approx((1e-8 * size / wanted,) * 2)


def test_rectangles_get_square_pixels() -> None:
    """[DATA-210] Each axis has its own object pixel before, and the same one afterwards."""
    raw = smooth_scan(128)
    tall = RawScan(
        place_centred(raw.patterns, (128, 100)),
        raw.positions * [1, 100 / 128],
        probe=resample_probe(raw.probe, (128, 100)),
        geometry=Geometry(8000.0, 2.0, (75e-6, 75e-6)),
    )
    fitted = fit_size(tall)
    np.testing.assert_allclose(fitted.positions, raw.positions)
    pixel, _ = fitted.geometry.pixel_m(fitted.size)
    assert pixel[0] == pixel[1]
    assert int(fitted.bad_pixels.sum()) == 128 * 28
    assert float(np.abs(fitted.probe - raw.probe).max()) < 0.01 * float(np.abs(raw.probe).max())


def test_binning_keeps_counts_and_pixels() -> None:
    """[DATA-211] Blocks are summed; probe and positions go on explaining them."""
    raw = smooth_scan(128, width=0.04)
    binned = bin_patterns(raw, 2)
    np.testing.assert_allclose(binned.patterns.sum(axis=(1, 2)), raw.patterns.sum(axis=(1, 2)), rtol=1e-5)
    assert binned.geometry.object_pixel_m == raw.geometry.object_pixel_m
    np.testing.assert_array_equal(binned.positions, raw.positions)
    assert misfit(binned) < 0.05
    unmoved = binned.with_changes(probe=raw.probe[:, 32:96, 32:96])
    assert misfit(unmoved) > 2 * misfit(binned), "the half pixel of a block would not be noticed"


@pytest.mark.parametrize("amplitude", [False, True])
def test_integers_and_amplitudes_are_binned_as_counts(amplitude: bool) -> None:
    """[DATA-211]"""
    counts = np.random.default_rng(1).poisson(200, (3, 8, 8)).astype(np.uint8)
    patterns = np.sqrt(counts.astype(np.float32)) if amplitude else counts
    raw = RawScan(patterns, None, measurement=Measurement.AMPLITUDE if amplitude else Measurement.COUNTS)
    binned = bin_patterns(raw, 2).patterns
    expected = counts.reshape(3, 4, 2, 4, 2).sum(axis=(2, 4), dtype=np.int64)
    np.testing.assert_allclose(binned.astype(float) ** (2 if amplitude else 1), expected, rtol=1e-6)


def test_bad_pixels_spread_to_their_block() -> None:
    """[DATA-211] A bad pixel's value is not summed."""
    patterns = np.ones((2, 4, 4), np.uint16)
    patterns[:, 1, 1] = 65535
    bad = np.zeros((4, 4), bool)
    bad[1, 1] = True
    binned = bin_patterns(RawScan(patterns, None, bad_pixels=bad), 2)
    assert binned.bad_pixels.tolist() == [[True, False], [False, False]]
    assert binned.patterns[0].tolist() == [[3, 4], [4, 4]]


def test_marks_of_gaps_are_not_summed() -> None:
    """[DATA-211] [DATA-035] A gap is bad and named; a pixel that saturates now and then saturates its block."""
    rng = np.random.default_rng(2)
    patterns = rng.poisson(30, (12, 8, 8)).astype(np.uint32)
    patterns[:, 2, 3] = 2**32 - 1
    binned = bin_patterns(RawScan(patterns, None), 2)
    assert np.argwhere(binned.bad_pixels).tolist() == [[1, 1]]
    assert "1 pixels have a value that marks gaps" in binned.mended[0].message
    good = ~binned.bad_pixels  # type: ignore[operator]
    assert int(binned.patterns[:, good].max()) < 250
    few = rng.poisson(30, (12, 8, 8)).astype(np.uint16)
    few[3, 6, 6] = 65535
    saturated = bin_patterns(RawScan(few, None), 2)
    if saturated.bad_pixels is None or not saturated.bad_pixels[3, 3]:
        assert saturated.patterns[3, 3, 3] == np.iinfo(saturated.patterns.dtype).max


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((100, 100), (128, 1)),
        ((104, 104), (128, 1)),
        ((192, 192), (256, 1)),
        ((512, 512), (256, 2)),
        ((1030, 1065), (256, 4)),
        ((33, 33), (32, 1)),
        ((31, 20), (32, 1)),
        ((72, 60), (64, 1)),
        ((73, 60), (128, 1)),
        ((288, 288), (256, 1)),
        ((487, 195), (256, 2)),
    ],
)
def test_the_rule_depends_on_size_alone(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """[DATA-212] So that a training and an inference of one detector agree."""
    rule = rule_for(size, None)
    assert (rule.size, rule.binning) == expected
    assert rule.size in SUPPORTED_N


def test_a_wide_probe_is_not_binned_away() -> None:
    """[DATA-212]"""
    assert rule_for((512, 512), smooth_probe(512, 0.05)).binning == 2
    assert rule_for((512, 512), smooth_probe(512, 0.4)) == rule_for((256, 256), None)


def test_a_probe_keeps_its_energy_and_comes_back() -> None:
    """[DATA-210]"""
    probe = smooth_probe(100)
    padded = resample_probe(probe, (128, 128))
    assert float((np.abs(padded) ** 2).sum()) == pytest.approx(float((np.abs(probe) ** 2).sum()), rel=1e-4)
    np.testing.assert_allclose(resample_probe(padded, (100, 100)), probe, atol=1e-4 * float(np.abs(probe).max()))


def test_every_pixel_is_measured_or_bad() -> None:
    """[DATA-210] Padded pixels were not measured; DC goes to [N//2, N//2]."""
    patterns = np.zeros((2, 5, 7), np.uint16)
    patterns[:, 2, 3] = 9
    raw = resize_patterns(RawScan(patterns, None), 8)
    assert raw.patterns[0, 4, 4] == 9
    assert int((~raw.bad_pixels).sum()) == 5 * 7


def test_padding_is_not_taken_for_a_mask_the_other_way_round(tmp_path: Path) -> None:
    """[DATA-063] [DATA-210] Three in four pixels are bad without a warning; an inverted mask has one."""
    raw = resize_patterns(RawScan(np.ones((2, 16, 17)), None), 32)
    assert raw.bad_pixels is not None
    box = measured_box(raw.bad_pixels)
    assert raw.bad_pixels[box].shape == (16, 17)
    y, x = np.indices((32, 32)) - 15.5
    inverted = y**2 + x**2 > 36
    assert inverted[measured_box(inverted)].shape == (32, 32)
    probe = np.zeros((32, 32), np.complex64)
    probe[14:18, 14:18] = 30
    far = np.abs(np.fft.fftshift(np.fft.fft2(probe, norm="ortho"))) ** 2
    for mask, warned in ((raw.bad_pixels, False), (inverted, True)):
        counts = np.repeat(np.rint(far * 100).astype(np.uint32)[None], 4, axis=0)
        np.savez(
            tmp_path / "scan.npz",
            diff3d=counts,
            xcoords=[0, 3, 0, 3],
            ycoords=[0, 0, 3, 3],
            probeGuess=probe,
            bad_pixels=mask,
        )
        messages = [problem.message for problem in check_scan(tmp_path / "scan.npz") if problem.key == "bad_pixels"]
        assert any("of the pixels are bad" in message for message in messages) is warned


@pytest.mark.parametrize(("height", "width"), [(100, 100), (104, 90), (512, 512)])
def test_files_of_any_size_are_read(tmp_path: Path, height: int, width: int, caplog: pytest.LogCaptureFixture) -> None:
    """[DATA-210] [DATA-031] And the log says what was done."""
    rng = np.random.default_rng(0)
    probe = np.zeros((height, width), np.complex64)
    probe[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = 30
    far = np.abs(np.fft.fftshift(np.fft.fft2(probe, norm="ortho"))) ** 2
    np.savez(
        tmp_path / "scan.npz",
        diff3d=rng.poisson(far, (4, height, width)).astype(np.uint32),
        xcoords=[0, 3, 0, 3],
        ycoords=[0, 0, 3, 3],
        probeGuess=probe,
        _metadata=ScanMetadata(pixel_size_m=1e-8).model_dump_json(),
    )
    with caplog.at_level(logging.INFO):
        data = read_scan(tmp_path / "scan.npz")
    assert data.N in SUPPORTED_N
    assert data.probe.shape[1:] == (data.N, data.N)
    assert f"The patterns are {height} x {width}" in caplog.text
    if height == width == 100:
        assert data.metadata.pixel_size_m == pytest.approx(1e-8 * 100 / 128)
        np.testing.assert_allclose(data.positions[3], [3.84, 3.84])
