"""The steps of a conversion, one by one: specs/24-formats.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptychopinn.config.reading import Measurement
from ptychopinn.data import scan_steps
from ptychopinn.data.probe_recipes import make_probe, parse_recipe, use_probe
from ptychopinn.data.raw_scan import Geometry, RawScan
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.forward import expected_counts


def scan(n: int = 5, size: int = 32) -> RawScan:
    """Patterns that object, probe and positions explain, none of them symmetric."""
    rng = np.random.default_rng(3)
    y, x = np.indices((size, size)) - (size - 1) / 2
    probe = np.exp(-((y - 2) ** 2 / 20 + (x + 1) ** 2 / 40) * (1 - 0.7j))[None] * 30
    phase = gaussian_filter(rng.standard_normal((size + 14, size + 18)), 2) * 3
    obj = np.exp(1j * phase)
    positions = size / 2 + rng.uniform(0, 12, (n, 2))
    counts = expected_counts(obj, probe, positions)
    bad = np.zeros((size, size), bool)
    bad[4, 9] = True
    return RawScan(counts, positions, probe=probe, object_guess=obj, bad_pixels=bad)


def misfit(raw: RawScan) -> float:
    """Relative difference of the patterns from what object, probe and positions say."""
    assert raw.object_guess is not None
    assert raw.probe is not None
    assert raw.positions is not None
    said = expected_counts(raw.object_guess, raw.probe, raw.positions)
    return float(np.abs(said - raw.patterns).sum() / raw.patterns.sum())


MIRRORS: dict[str, Callable[[RawScan], RawScan]] = {
    "y": lambda raw: scan_steps.flip_patterns(scan_steps.negate_positions(raw, "y"), "y"),
    "x": lambda raw: scan_steps.flip_patterns(scan_steps.negate_positions(raw, "x"), "x"),
    "axes": lambda raw: scan_steps.transpose_patterns(scan_steps.swap_axes(raw)),
    "quarter": lambda raw: scan_steps.rotate_patterns(scan_steps.negate_positions(scan_steps.swap_axes(raw), "y"), 1),
}


@pytest.mark.parametrize("name", MIRRORS)
@pytest.mark.parametrize("size", [32, 33])
def test_the_world_in_a_mirror_obeys_the_same_physics(name: str, size: int) -> None:
    """[DATA-220] [DATA-221] Patterns and positions turned alike fit as before; turned alone they do not."""
    raw = scan(size=size)
    assert misfit(raw) < 1e-6
    assert misfit(MIRRORS[name](raw)) < 1e-6
    alone = {"y": scan_steps.negate_positions(raw, "y"), "x": scan_steps.negate_positions(raw, "x")}
    assert misfit(alone.get(name, scan_steps.swap_axes(raw))) > 0.05


def test_turned_patterns_take_their_bad_pixels_along() -> None:
    """[DATA-220] About DC, which stays at [N//2, N//2]."""
    raw = scan()
    flipped = scan_steps.flip_patterns(raw, "y")
    assert flipped.bad_pixels is not None
    assert np.argwhere(flipped.bad_pixels).tolist() == [[28, 9]]  # 16 + (16 - 4)
    np.testing.assert_array_equal(flipped.patterns[:, 16, 16], raw.patterns[:, 16, 16])
    np.testing.assert_array_equal(scan_steps.rotate_patterns(raw, 4).patterns, raw.patterns)
    twice = scan_steps.rotate_patterns(raw, 2)
    np.testing.assert_array_equal(twice.patterns, scan_steps.flip_patterns(flipped, "x").patterns)


def test_a_rotation_is_counter_clockwise() -> None:
    """[DATA-220] As numpy.rot90."""
    patterns = np.arange(25).reshape(1, 5, 5)
    turned = scan_steps.rotate_patterns(RawScan(patterns, None), 1)
    np.testing.assert_array_equal(turned.patterns[0], np.rot90(patterns[0]))


def test_positions_are_scaled_moved_and_given_a_unit() -> None:
    """[DATA-221]"""
    raw = RawScan(np.ones((2, 32, 32)), np.array([[1.0, 2.0], [3.0, 5.0]]))
    assert scan_steps.scale_positions(raw, (2, -1)).positions.tolist() == [[2, -2], [6, -5]]  # type: ignore[union-attr]
    assert scan_steps.offset_positions(raw, (1, 10)).positions.tolist() == [[2, 12], [4, 15]]  # type: ignore[union-attr]
    micrometres = scan_steps.positions_in(raw, "um")
    assert micrometres.unit == "m"
    np.testing.assert_allclose(micrometres.positions, [[1e-6, 2e-6], [3e-6, 5e-6]])
    with pytest.raises(DataError, match="scaled by"):
        scan_steps.scale_positions(raw, (0, 1))


def test_positions_are_moved_in_the_list() -> None:
    """[DATA-221] Pattern j gets the position of pattern j - 1; the first has none."""
    raw = RawScan(np.arange(3)[:, None, None] * np.ones((3, 4, 4)), np.arange(6.0).reshape(3, 2))
    moved = scan_steps.roll_positions(raw, 1)
    assert moved.patterns[:, 0, 0].tolist() == [1, 2]
    assert moved.positions.tolist() == [[0, 1], [2, 3]]  # type: ignore[union-attr]
    assert scan_steps.roll_positions(raw, -1).positions.tolist() == [[2, 3], [4, 5]]  # type: ignore[union-attr]


def test_pixels_are_masked_by_a_mask_and_by_a_threshold() -> None:
    """[DATA-222]"""
    patterns = np.full((3, 4, 4), 5.0)
    patterns[1, 2, 3], patterns[0, 0, 0], patterns[2, 1, 1] = 1e9, -1, np.nan
    raw = scan_steps.mask_above(RawScan(patterns, None), 1000)
    assert np.argwhere(raw.bad_pixels).tolist() == [[0, 0], [1, 1], [2, 3]]
    more = scan_steps.mask_pixels(raw, np.eye(4, dtype=bool))
    assert int(more.bad_pixels.sum()) == 5  # type: ignore[union-attr]
    with pytest.raises(DataError, match="does not fit"):
        scan_steps.mask_pixels(raw, np.ones((3, 3), bool))
    for measurement, bad in ((Measurement.COUNTS, 0), (Measurement.AMPLITUDE, 16)):  # the threshold is in counts
        raw = scan_steps.mask_above(RawScan(np.full((1, 4, 4), 5.0), None, measurement=measurement), 24)
        assert int(raw.bad_pixels.sum()) == bad  # type: ignore[union-attr]


def test_a_background_is_subtracted_from_counts() -> None:
    """[DATA-222] Also of amplitudes; what would be negative is 0."""
    counts = np.array([[[4.0, 9.0], [1.0, 16.0]]])
    dark = np.array([[1.0, 0.0], [3.0, 0.0]])
    expected = [[[3, 9], [0, 16]]]
    raw = RawScan(counts, None)
    np.testing.assert_allclose(scan_steps.subtract_background(raw, dark).patterns, expected)
    amplitudes = RawScan(np.sqrt(counts), None, measurement=None, legacy_key=False)
    np.testing.assert_allclose(scan_steps.subtract_background(amplitudes, dark).patterns ** 2, expected, rtol=1e-6)
    with pytest.raises(DataError, match="background"):
        scan_steps.subtract_background(raw, -1.0)


def test_the_geometry_of_a_file_can_be_set() -> None:
    """[DATA-221]"""
    raw = RawScan(np.ones((2, 10, 10)), np.ones((2, 2)) * 1e-6, unit="m")
    found = scan_steps.set_geometry(raw, Geometry(8000.0, 2.0, (75e-6, 75e-6))).geometry.pixel_m((10, 10))
    assert found is not None
    assert found[0][0] == pytest.approx(1.2398419843e-6 / 8000 * 2 / (10 * 75e-6))
    assert scan_steps.set_geometry(raw, Geometry(object_pixel_m=(1e-8, 1e-8))).geometry.object_pixel_m == (1e-8, 1e-8)


def width_of(probe: Any) -> float:
    """Full width at half maximum of the intensity along x, pixels."""
    line = (np.abs(probe[0]) ** 2)[probe.shape[1] // 2]
    return float((line > line.max() / 2).sum())


GEOMETRY = Geometry(8000.0, object_pixel_m=(2e-8, 2e-8))


def make(text: str, size: int = 64) -> Any:
    y, x = np.indices((size, size)) - size // 2
    patterns = np.repeat((1000 * np.exp(-(y**2 + x**2) / 60))[None], 2, axis=0)
    raw = make_probe(RawScan(patterns, np.zeros((2, 2)), geometry=GEOMETRY), text)
    energy = float((np.abs(raw.probe) ** 2).sum())  # type: ignore[arg-type]
    assert energy == pytest.approx(float(patterns[0].sum()), rel=1e-4)
    return raw.probe


def test_probes_are_made_from_what_is_known() -> None:
    """[DATA-230]"""
    assert width_of(make("gaussian:fwhm=12px")) == pytest.approx(12, abs=1)
    assert width_of(make("gaussian:fwhm=240e-9")) == pytest.approx(12, abs=1)
    assert width_of(make("aperture:diameter=400e-9")) == pytest.approx(20, abs=2)
    assert width_of(make("gaussian:fwhm=6px,defocus=4e-4")) > 1.6 * width_of(make("gaussian:fwhm=6px"))
    far = np.abs(np.fft.fftshift(np.fft.fft2(make("zone-plate:diameter=120e-6,outer_width=60e-9,stop=60e-6")[0])))
    lit = far > far.max() / 2
    # Edge of the cone at 1 / (2 w): 1 / 120 nm over the pixels of far field, 1 / (64 x 20 nm).
    assert np.sqrt(lit.sum() / np.pi / (1 - 0.25)) == pytest.approx(64 * 20 / 120, rel=0.1)
    assert not lit[32, 32]


def test_a_probe_is_made_from_the_mean_pattern() -> None:
    """[DATA-230] Its far field is the mean pattern, and it is centred on its window."""
    probe = make("mean")
    far = np.abs(np.fft.fftshift(np.fft.fft2(probe[0], norm="ortho"))) ** 2
    y, x = np.indices((64, 64)) - 32
    np.testing.assert_allclose(far, 1000 * np.exp(-(y**2 + x**2) / 60), atol=1)
    weight = np.abs(probe[0]) ** 2
    places = np.arange(64) - 31.5
    assert abs(float((weight.sum(axis=0) * places).sum() / weight.sum())) < 1e-3


@pytest.mark.parametrize("text", ["lens:f=3", "gaussian", "gaussian:fwhm=-1", "aperture:diameter=wide", "mean:fwhm=2"])
def test_a_recipe_that_is_none_is_refused_with_all_there_are(text: str) -> None:
    """[DATA-230]"""
    with pytest.raises(ConfigError, match=r"zone-plate:diameter=,outer_width="):
        parse_recipe(text)


def test_a_probe_of_another_size_is_resampled() -> None:
    """[DATA-230]"""
    probe = make("gaussian:fwhm=12px")
    raw = use_probe(RawScan(np.ones((2, 32, 32)), np.zeros((2, 2))), probe, "other.npz")
    assert raw.probe is not None
    assert raw.probe.shape == (1, 32, 32)
    assert width_of(raw.probe) == pytest.approx(6, abs=1)
