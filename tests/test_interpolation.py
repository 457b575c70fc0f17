"""Sub-pixel shifts. Requirements: specs/03-physics.md."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptychopinn import interpolation
from ptychopinn.arrays import NUMPY
from ptychopinn.geometry import split_positions
from ptychopinn.interpolation import (
    ShiftedProbe,
    place_on_pixels,
    quintic,
    shift_basis,
    shift_probe,
    shift_ramps,
    shift_weights,
)
from ptychopinn.simulate import simulate_object, true_patches

MARGIN = 12  # px from the edges, where a spline no longer feels that it was mirrored there
few = settings(max_examples=15, deadline=None)
fractions_st = st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)).map(lambda f: np.array([f]))


def plane_waves(seed, highest):
    """A function of (y, x): twenty plane waves of up to ``highest`` cycles a pixel."""
    rng = np.random.default_rng(seed)
    radius, angle = highest * np.sqrt(rng.random(20)), rng.uniform(0, 2 * np.pi, 20)
    amplitude = rng.standard_normal(20) + 1j * rng.standard_normal(20)

    def field(y, x):
        phase = radius * np.sin(angle) * y[..., None] + radius * np.cos(angle) * x[..., None]
        return (amplitude * np.exp(2j * np.pi * phase)).sum(axis=-1)

    return field


def gaussian(n, y, x):
    """(1, n, n) complex Gaussian centred at (y, x)."""
    i = np.arange(n)
    return np.exp(-((i[:, None] - y) ** 2 + (i[None, :] - x) ** 2) / (2 * 2.5**2) * (1 - 0.3j))[None]


@few
@given(
    st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=1, max_size=5),
    st.integers(1, 129),
)
def test_split_positions(positions, size):
    """[PHYS-010]"""
    positions = np.array(positions)
    corners, fractions = split_positions(positions, size)
    assert corners.dtype == np.int64
    assert (fractions >= -0.5).all()
    assert (fractions < 0.5).all()
    np.testing.assert_allclose(corners + fractions, positions - (size - 1) / 2, atol=1e-9)


def test_split_of_a_pixel_centre_needs_no_shift_for_odd_windows():
    """[PHYS-010] an odd window is centred on a pixel, an even one between pixels."""
    corners, fractions = split_positions(np.array([[10.0, 20.0]]), 5)
    assert corners.tolist() == [[8, 18]]
    assert fractions.tolist() == [[0.0, 0.0]]
    assert np.abs(split_positions(np.array([[10.0, 20.0]]), 4)[1]).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("n", [15, 16])
@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, 1), (-2, 3)])
def test_a_whole_shift_of_the_probe_is_a_roll(n, shift):
    """[PHYS-011]"""
    rng = np.random.default_rng(0)
    probe = rng.standard_normal((2, n, n)) + 1j * rng.standard_normal((2, n, n))
    moved = shift_probe(probe, np.array([shift], float))
    assert moved.dtype == np.complex128
    np.testing.assert_allclose(moved[0], np.roll(probe, shift, axis=(1, 2)), atol=1e-12)


@few
@given(fractions_st)
def test_a_band_limited_probe_is_moved_exactly(f):
    """[PHYS-011]"""
    moved = shift_probe(gaussian(40, 19.3, 20.1), f)[0]
    np.testing.assert_allclose(moved, gaussian(40, 19.3 + f[0, 0], 20.1 + f[0, 1]), atol=1e-7)


@few
@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 5), st.just(2)), elements=st.floats(-0.5, 0.5)))
@pytest.mark.parametrize("n", [33, 64])
@pytest.mark.parametrize("width", [0.8, 6.0])
def test_a_probe_that_is_moved_often_is_where_the_ramps_put_it(n, width, f):
    """[PHYS-011] narrow, so with a wide spectrum, or not; to what complex64 resolves."""
    y, x = np.mgrid[:n, :n] - n / 2
    curved = np.exp(-(y**2 + x**2) / (2 * width**2) + 0.01j * (y**2 + 2 * x))
    probe = (curved * np.array([1, 0.3j * x[0, 5]])[:, None, None]).astype(np.complex64)
    moved = ShiftedProbe(probe)(f)
    assert moved.shape == (len(f), 2, n, n)
    assert moved.dtype == np.complex64
    np.testing.assert_allclose(moved, shift_probe(probe.astype(np.complex128), f), atol=2e-6 * np.linalg.norm(probe))


@pytest.mark.parametrize("n", [64, 1])
def test_what_is_cheap_is_used_where_it_holds(n, monkeypatch):
    """[PHYS-011] For a spectrum that needs too many arrays the ramps are."""
    asked = []
    monkeypatch.setattr(interpolation, "shift_probe", lambda probe, f, *a: asked.append(f) or shift_probe(probe, f, *a))
    smooth = np.exp(-((np.mgrid[:n, :n] - n / 2) ** 2).sum(axis=0) / 50)[None].astype(np.complex64)
    f = np.array([[0.4, -0.1]])
    np.testing.assert_allclose(ShiftedProbe(smooth)(f), shift_probe(smooth, f), atol=1e-5)
    assert asked == []
    noise = np.random.default_rng(0).standard_normal((1, 64, 64)).astype(np.complex64)
    asked.clear()
    monkeypatch.setattr(interpolation, "_MAX_TERMS", 20)
    np.testing.assert_array_equal(ShiftedProbe(noise)(f), shift_probe(noise, f))
    assert len(asked) == 1


@pytest.mark.parametrize(("m", "k", "length"), [(2, 3, 4), (300, 40, 50), (3, 40, 20_000), (500, 400, 700), (0, 2, 2)])
def test_products_in_pieces_are_products(m, k, length):
    """[PHYS-012]"""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, m, k)), rng.standard_normal((k, length))
    np.testing.assert_allclose(NUMPY.matmul(a, b), a @ b, atol=1e-10)


def test_a_real_probe_stays_real_and_single_precision_single():
    """[PHYS-011]"""
    probe = np.random.default_rng(1).standard_normal((1, 8, 8)).astype(np.complex64)
    moved = shift_probe(probe, np.array([[0.3, -0.4], [0.5, 0.1]]))
    assert moved.shape == (2, 1, 8, 8)
    assert moved.dtype == np.complex64
    assert np.abs(moved.imag).max() < 1e-6


@pytest.mark.parametrize("n", [7, 8])
def test_conjugate_ramps_are_the_adjoint(n):
    """[PHYS-011]"""
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 1, n, n)) + 1j * rng.standard_normal((2, 1, n, n))
    f = np.array([[0.37, -0.21]])
    ramp = shift_ramps(f, n).conj()
    back = np.fft.ifft2(np.fft.fft2(b) * ramp[0, 0][:, None] * ramp[0, 1][None, :])
    assert np.vdot(b, shift_probe(a, f)[0]) == pytest.approx(np.vdot(back, a))


def test_quintic_is_a_spline():
    """[PHYS-012] B-splines sum to 1 everywhere, peak at 66/120 and vanish at 3."""
    x = np.linspace(-0.5, 0.5, 11)
    np.testing.assert_allclose(sum(quintic(x + k) for k in range(-3, 4)), 1, atol=1e-14)
    assert quintic(np.array([0.0, 1.0, 2.0, 3.0])) * 120 == pytest.approx([66, 26, 1, 0])


@few
@given(fractions_st, st.sampled_from([1, 2, 5, 16]))
def test_constants_are_kept(f, n):
    """[PHYS-012]"""
    np.testing.assert_allclose(place_on_pixels(np.full((1, n, n), 2 - 1j), f), 2 - 1j, atol=1e-10)


def test_no_fraction_is_the_identity():
    """[PHYS-012]"""
    rng = np.random.default_rng(3)
    patches = (rng.standard_normal((2, 9, 9)) + 1j * rng.standard_normal((2, 9, 9))).astype(np.complex64)
    placed = place_on_pixels(patches, np.zeros((2, 2)))
    assert placed.dtype == np.complex64
    np.testing.assert_allclose(placed, patches, atol=1e-5)
    matrix = np.tensordot(shift_weights(np.array(0.0)), shift_basis(9), 1)
    np.testing.assert_allclose(matrix, np.eye(9), atol=1e-12)


def test_the_shared_basis_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        shift_basis(4)[0] = 1


@few
@given(fractions_st, st.integers(0, 1000))
def test_a_smooth_field_sampled_at_a_fraction_is_placed_back(f, seed):
    """[PHYS-013] the sign, the axes and the accuracy of the shift."""
    field = plane_waves(seed, 0.2)
    i = np.arange(48.0)
    sampled = field((i + f[0, 0])[:, None], (i + f[0, 1])[None, :])
    truth = field(i[:, None], i[None, :])
    inner = slice(MARGIN, -MARGIN)
    error = (place_on_pixels(sampled[None], f)[0] - truth)[inner, inner]
    assert np.abs(error).max() < 1e-3 * np.sqrt(np.mean(np.abs(truth) ** 2))


def test_a_textured_object_sampled_and_placed_is_the_object():
    """[PHYS-013]"""
    rng = np.random.default_rng(4)
    obj = simulate_object("textured", (160, 150), rng)
    positions = rng.uniform(50, 100, (8, 2))
    corners, fractions = split_positions(positions, 48)
    truth = NUMPY.cut_windows(obj, corners, 48)
    error = place_on_pixels(true_patches(obj, positions, 48), fractions) - truth
    inner = (slice(None), slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    assert np.linalg.norm(error[inner]) < 5e-3 * np.linalg.norm(truth[inner])
    assert np.linalg.norm(true_patches(obj, positions, 48) - truth) > 2e-2 * np.linalg.norm(truth)  # they did move
