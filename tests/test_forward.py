"""The reference forward model. Requirements: specs/03-physics.md."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychopinn.arrays import NUMPY
from ptychopinn.forward import (
    detector_ramp,
    exit_waves,
    exit_waves_adjoint,
    expected_counts,
    far_field,
    intensity,
)
from ptychopinn.simulate import simulate_object, simulate_probe

few = settings(max_examples=15, deadline=None)


def random_complex(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def transform(wave):
    """Unitary Fourier transform with DC at N//2, written out."""
    n = len(wave)
    k, i = np.arange(n) - n // 2, np.arange(n)
    matrix = np.exp(-2j * np.pi * np.outer(k, i) / n) / np.sqrt(n)
    return matrix @ wave @ matrix.T


@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("n", [7, 8])
def test_the_formula_written_out(n, modes):
    """[PHYS-001] whole-pixel windows, modes added in intensity."""
    rng = np.random.default_rng(0)
    obj, probe = random_complex(rng, 20, 24), random_complex(rng, modes, n, n)
    corner = np.array([5, 9])
    counts = expected_counts(obj, probe, (corner + (n - 1) / 2)[None])
    window = obj[5 : 5 + n, 9 : 9 + n]
    by_hand = sum(np.abs(transform(mode * window)) ** 2 for mode in probe)
    np.testing.assert_allclose(counts[0], by_hand, rtol=1e-10)


def test_modes_do_not_interfere():
    """[PHYS-001] together they give the sum of what each gives alone."""
    rng = np.random.default_rng(1)
    obj, probe = random_complex(rng, 20, 20), random_complex(rng, 3, 8, 8)
    positions = rng.uniform(6, 12, (4, 2))
    alone = sum(expected_counts(obj, mode[None], positions) for mode in probe)
    np.testing.assert_allclose(expected_counts(obj, probe, positions), alone)


def test_a_plane_wave_falls_on_the_centre():
    """[PHYS-001] DC is at [N//2, N//2]."""
    pattern = intensity(np.ones((1, 1, 8, 8), complex))[0]
    assert pattern[4, 4] == pytest.approx(64)
    assert pattern.sum() == pytest.approx(64)


@few
@given(st.integers(0, 1000), st.sampled_from([5, 8, 16]), st.integers(1, 3))
def test_energy_is_kept(seed, n, modes):
    """[PHYS-002]"""
    rng = np.random.default_rng(seed)
    waves = random_complex(rng, 2, modes, n, n)
    np.testing.assert_allclose(intensity(waves).sum(axis=(1, 2)), (np.abs(waves) ** 2).sum(axis=(1, 2, 3)))


def test_a_probe_in_counts_gives_counts():
    """[PHYS-002]"""
    probe = simulate_probe("disc", 32, photons=5e4, modes=2)
    counts = expected_counts(np.ones((50, 50), np.complex64), probe, np.array([[24.3, 25.1]]))
    assert counts.sum() == pytest.approx(5e4, rel=1e-4)


@pytest.mark.parametrize("n", [8, 9])
def test_a_position_is_a_pixel_centre_in_y_and_x(n):
    """[PHYS-003] a narrow probe sees the one dark pixel only where it stands, row by y and column by x."""
    obj = np.ones((24, 30), complex)
    obj[11, 17] = 0
    i = np.arange(n) - (n - 1) / 2
    narrow = np.exp(-(i[:, None] ** 2 + i[None, :] ** 2) / (2 * 0.8**2))[None].astype(complex)
    grid = np.array([[y, x] for y in range(8, 16) for x in range(13, 22)], float)
    light = expected_counts(obj, narrow, grid).sum(axis=(1, 2))
    assert grid[light.argmin()].tolist() == [11, 17]
    assert expected_counts(obj, narrow, np.array([[17.0, 11.0]])).sum() == pytest.approx(light.max(), rel=1e-3)


@few
@given(st.integers(0, 1000), st.integers(0, 5), st.integers(0, 7))
def test_object_and_positions_move_together(seed, dy, dx):
    """[PHYS-003]"""
    rng = np.random.default_rng(seed)
    obj, probe = random_complex(rng, 20, 20), random_complex(rng, 1, 6, 6)
    positions = rng.uniform(4, 15, (3, 2))
    moved = np.ones((28, 30), complex)
    moved[dy : dy + 20, dx : dx + 20] = obj
    np.testing.assert_allclose(
        expected_counts(moved, probe, positions + np.array([dy, dx])), expected_counts(obj, probe, positions), atol=1e-9
    )


def test_an_upright_object_and_no_other():
    """[PHYS-003] windows of an F come back as that F, and no mirror image or turn of it is alike."""
    obj = simulate_object("letter", (48, 48), np.random.default_rng(0))
    probe = np.ones((1, 48, 48), complex)
    wave = exit_waves(obj.astype(complex), probe, np.array([[23.5, 23.5]]))[0, 0]
    np.testing.assert_allclose(wave, obj, atol=1e-6)
    for other in (obj[::-1], obj[:, ::-1], obj[::-1, ::-1], obj.T, np.rot90(obj), obj.T[::-1, ::-1], np.rot90(obj, 3)):
        assert np.linalg.norm(wave - other) > 0.2 * np.linalg.norm(wave)


@few
@given(st.integers(0, 1000), st.integers(1, 2))
def test_the_adjoint(seed, modes):
    """[PHYS-004]"""
    rng = np.random.default_rng(seed)
    obj, probe = random_complex(rng, 18, 15), random_complex(rng, modes, 6, 6)
    positions = rng.uniform(4, 10, (5, 2))
    waves = random_complex(rng, 5, modes, 6, 6)
    left = np.vdot(waves, exit_waves(obj, probe, positions))
    right = np.vdot(exit_waves_adjoint(waves, probe, positions, obj.shape), obj)
    assert left == pytest.approx(right, rel=1e-10)


@few
@given(st.integers(-9, 14), st.integers(-9, 14))
def test_outside_the_object_is_one(y, x):
    """[PHYS-005] a window that leaves the array, in part or whole."""
    rng = np.random.default_rng(0)
    obj = random_complex(rng, 9, 11)
    padded = np.ones((49, 51), complex)
    padded[20:29, 20:31] = obj
    window = NUMPY.cut_windows(obj, np.array([[y, x]]), 8)[0]
    np.testing.assert_array_equal(window, padded[20 + y : 28 + y, 20 + x : 28 + x])


@few
@given(st.integers(-9, 14), st.integers(-9, 14))
def test_add_windows_is_the_adjoint_of_cutting(y, x):
    """[PHYS-004] what falls outside is dropped, what overlaps adds up."""
    rng = np.random.default_rng(1)
    corners = np.array([[y, x], [y, x + 2]])
    windows = random_complex(rng, 2, 8, 8)
    canvas = np.zeros((9, 11), complex)
    NUMPY.add_windows(canvas, windows, corners)
    padded = np.zeros((49, 51), complex)
    padded[20 + y : 28 + y, 20 + x : 28 + x] += windows[0]
    padded[20 + y : 28 + y, 22 + x : 30 + x] += windows[1]
    np.testing.assert_allclose(canvas, padded[20:29, 20:31])


@pytest.mark.parametrize(("dtype", "real"), [(np.complex64, np.float32), (np.complex128, np.float64)])
def test_precision_is_the_callers(dtype, real):
    """[PHYS-006]"""
    rng = np.random.default_rng(2)
    obj, probe = random_complex(rng, 16, 16).astype(dtype), random_complex(rng, 2, 8, 8).astype(dtype)
    positions = np.array([[7.2, 8.9]])
    assert exit_waves(obj, probe, positions).dtype == dtype
    counts = expected_counts(obj, probe, positions)
    assert counts.dtype == real
    exact = expected_counts(obj.astype(complex), probe.astype(complex), positions)
    np.testing.assert_allclose(counts, exact, rtol=0, atol=exact.max() * (1e-6 if real is np.float32 else 1e-15))


@pytest.mark.parametrize("n", [15, 16])
@pytest.mark.parametrize("offset", [(1, 0), (0, -2), (3, 2)])
def test_a_detector_ramp_moves_the_far_field(n, offset):
    """[PHYS-007]"""
    wave = random_complex(np.random.default_rng(3), n, n)
    moved = np.abs(far_field(wave * detector_ramp(np.array(offset, float), n))) ** 2
    np.testing.assert_allclose(moved, np.roll(np.abs(far_field(wave)) ** 2, offset, axis=(0, 1)), atol=1e-9)


def test_a_detector_ramp_moves_by_fractions_too():
    """[PHYS-007] the centre of mass of a pattern well inside the detector moves by the offset."""
    probe = simulate_probe("gaussian", 32, photons=1.0).astype(complex)
    index = np.arange(32)

    def centre(wave):
        pattern = np.abs(far_field(wave)) ** 2
        return np.array([(pattern.sum(axis=1) * index).sum(), (pattern.sum(axis=0) * index).sum()])

    moved = centre(probe[0] * detector_ramp(np.array([0.3, -1.6]), 32)) - centre(probe[0])
    assert moved == pytest.approx([0.3, -1.6], abs=1e-3)


@few
@given(st.floats(-3, 3))
def test_the_global_phase_is_not_in_the_counts(phase):
    """[PHYS-008]"""
    rng = np.random.default_rng(4)
    obj, probe = random_complex(rng, 12, 12), random_complex(rng, 1, 6, 6)
    positions = np.array([[5.3, 6.8]])
    turned = expected_counts(obj * np.exp(1j * phase), probe, positions)
    np.testing.assert_allclose(turned, expected_counts(obj, probe, positions))
