"""Simulated positions and scans. Requirements: specs/02-simulation.md."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial import cKDTree

from ptychopinn.arrays import NUMPY
from ptychopinn.config.simulation import SimulationConfig
from ptychopinn.data.dataset import Measurement
from ptychopinn.errors import ConfigError
from ptychopinn.forward import expected_counts
from ptychopinn.geometry import split_positions
from ptychopinn.monitor import Monitor
from ptychopinn.simulate import probe_width_px, scan, scan_positions, simulate_object, simulate_probe, simulate_scan
from ptychopinn.simulate.scan import needed_shape, step_px


def small(**changes):
    return SimulationConfig(**{"N": 32, "rows": 3, "cols": 4, "nphotons": 1e4} | changes)


def test_a_raster_has_x_fastest():
    """[SIM-020]"""
    positions = scan_positions("raster", 2, 3, 5.0)
    assert positions.tolist() == [[-2.5, -5], [-2.5, 0], [-2.5, 5], [2.5, -5], [2.5, 0], [2.5, 5]]


def test_jitter_moves_in_both_axes_and_no_further():
    """[SIM-020]"""
    moved = scan_positions("jittered", 20, 20, 5.0, jitter_px=2.0, rng=np.random.default_rng(0))
    distance = moved - scan_positions("raster", 20, 20, 5.0)
    assert np.abs(distance).max() <= 2
    assert (np.abs(distance).max(axis=0) > 1.8).all()
    assert np.abs(distance.mean(axis=0)).max() < 0.2
    with pytest.raises(ConfigError, match="without a random generator"):
        scan_positions("jittered", 2, 2, 5.0, jitter_px=1.0)


def test_a_spiral_is_as_dense_as_the_raster():
    """[SIM-020]"""
    positions = scan_positions("spiral", 30, 30, 4.0)
    assert len(positions) == 900
    radius = np.hypot(*positions.T)
    assert (np.diff(radius) > 0).all()
    assert (radius < 40).sum() * 4.0**2 == pytest.approx(np.pi * 40**2, rel=0.03)
    nearest = cKDTree(positions).query(positions, k=2)[0][:, 1]
    assert nearest.min() > 0.6 * 4.0


def test_step_from_overlap_and_by_default():
    """[SIM-021]"""
    probe = simulate_probe("disc", 64, photons=1.0)
    assert step_px(SimulationConfig(), probe) == 7
    assert step_px(SimulationConfig(N=128), probe) == 14
    assert step_px(SimulationConfig(step_px=3.5), probe) == 3.5
    assert step_px(SimulationConfig(overlap=0.75), probe) == pytest.approx(probe_width_px(probe) / 4)


def test_the_default_is_the_pair_of_the_benchmarks():
    """[SIM-030]"""
    config = SimulationConfig()
    assert (config.N, config.rows, config.cols, config.effective_jitter_px) == (64, 45, 45, 2)
    assert (config.object_kind, config.probe_kind, config.scan_kind) == ("textured", "disc", "jittered")
    assert (config.amplitude, config.phase_rad, config.nphotons) == ((0.4, 1.0), (-1.0, 1.0), 1e6)
    assert needed_shape(config, simulate_probe("disc", 64, photons=1.0)) == (392, 392)


def test_what_a_scan_holds():
    """[SIM-032]"""
    data = simulate_scan(small(write_patches=True, probe_modes=2))
    assert len(data) == 12
    assert data.measurement is Measurement.COUNTS
    assert data.patterns.dtype == np.uint32
    assert data.probe.shape == (2, 32, 32)
    assert data.object_guess.dtype == np.complex64
    assert data.metadata.measurement is Measurement.COUNTS
    assert data.metadata.nphotons == pytest.approx(data.patterns.sum() / 12)
    assert SimulationConfig(**data.metadata.model_extra["simulation"]) == small(write_patches=True, probe_modes=2)
    # A patch in the probe's frame is the window but for a fraction of a pixel.
    corners, fractions = split_positions(data.positions, 32)
    nearest = np.abs(fractions).max(axis=1).argmin()
    window = NUMPY.cut_windows(data.object_guess, corners[nearest : nearest + 1], 32)[0]
    error = np.linalg.norm(data.patches_guess[nearest] - window) / np.linalg.norm(window)
    assert error < 0.2
    assert np.linalg.norm(data.patches_guess[nearest] - window.T) > 2 * error * np.linalg.norm(window)
    assert simulate_scan(small()).patches_guess is None


def test_counts_are_poisson_around_the_forward_model():
    """[SIM-031] and the energy of the probe is nphotons."""
    data = simulate_scan(small(rows=6, cols=6, nphotons=3e4))
    assert np.sum(np.abs(data.probe) ** 2) == pytest.approx(3e4, rel=1e-5)
    mean = expected_counts(data.object_guess.astype(complex), data.probe.astype(complex), data.positions)
    some = mean > 1
    chi2 = ((data.patterns - mean)[some] ** 2 / mean[some]).mean()
    assert chi2 == pytest.approx(1, abs=6 * np.sqrt(2 / some.sum()) + 0.01)
    assert data.patterns.sum() == pytest.approx(mean.sum(), abs=5 * np.sqrt(mean.sum()))


def test_seeds():
    """[SIM-001]"""
    first, again, other = (simulate_scan(small(seed=s)) for s in (1, 1, 2))
    for name in ("patterns", "positions", "object_guess"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


@pytest.mark.parametrize("change", [{"nphotons": 500.0}, {"bad_pixel_fraction": 0.1}, {"probe_kind": "gaussian"}])
def test_dose_probe_and_bad_pixels_leave_the_object(change):
    """[SIM-033]"""
    plain, changed = simulate_scan(small()), simulate_scan(small(**change))
    np.testing.assert_array_equal(plain.object_guess, changed.object_guess)
    np.testing.assert_array_equal(plain.positions, changed.positions)
    assert not np.array_equal(plain.patterns, changed.patterns)


def test_bad_pixels_count_nothing():
    """[SIM-034]"""
    plain, data = simulate_scan(small()), simulate_scan(small(bad_pixel_fraction=0.2))
    assert data.bad_pixels.mean() == pytest.approx(0.2, abs=0.05)
    assert not data.patterns[:, data.bad_pixels].any()
    np.testing.assert_array_equal(data.patterns[:, ~data.bad_pixels], plain.patterns[:, ~data.bad_pixels])


def test_a_detector_offset_moves_the_patterns_and_is_not_in_the_probe():
    """[SIM-034]"""
    plain, moved = (simulate_scan(small(detector_offset_px=o, nphotons=1e6)) for o in (None, (3.0, -2.0)))
    np.testing.assert_array_equal(plain.probe, moved.probe)
    rolled = np.roll(plain.patterns.astype(float), (3, -2), axis=(1, 2))
    mean = moved.patterns.astype(float)
    assert np.abs(rolled - mean).sum() < 0.05 * mean.sum()
    assert np.abs(plain.patterns - mean).sum() > 0.5 * mean.sum()


def test_an_object_and_a_probe_of_the_callers():
    """[SIM-032] in the frame of the positions, upright."""
    obj = simulate_object("letter", (80, 90), np.random.default_rng(0))
    probe = np.ones((1, 32, 32))
    data = simulate_scan(small(), obj=obj, probe=probe)
    np.testing.assert_array_equal(data.object_guess, obj)
    assert np.sum(np.abs(data.probe) ** 2) == pytest.approx(1e4, rel=1e-5)
    mean = expected_counts(obj, data.probe, data.positions)
    assert np.abs(data.patterns - mean).sum() < 0.2 * mean.sum()


def test_blocks_do_not_show(monkeypatch):
    """[SIM-036] and progress is told."""
    config = small(write_patches=True)
    whole = simulate_scan(config)
    monkeypatch.setattr(scan, "_BLOCK", 5)
    seen = []
    data = simulate_scan(config, monitor=Monitor(lambda p: seen.append((p.stage, p.done, p.total))))
    np.testing.assert_allclose(data.patches_guess, whole.patches_guess, atol=1e-6)
    assert np.mean(data.patterns != whole.patterns) < 1e-3
    assert seen == [("simulate", 5, 12), ("simulate", 10, 12), ("simulate", 12, 12)]


@pytest.mark.parametrize("kind", ["raster", "spiral"])
def test_other_scans_fit_into_their_objects(kind):
    """[SIM-032]"""
    data = simulate_scan(small(scan_kind=kind, rows=5, cols=5, object_kind="cells"))
    corners, _ = split_positions(data.positions, 32)
    assert (corners >= 0).all()
    assert (corners + 32 <= np.array(data.object_guess.shape)).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"N": 48}, "48"),
        ({"step_px": 2.0, "overlap": 0.5}, "overlap"),
        ({"scan_kind": "raster", "jitter_px": 1.0}, "no effect"),
        ({"amplitude": (1.0, 0.4)}, "smaller bound first"),
        ({"amplitude": (-1.0, 0.4)}, "negative"),
        ({"object_shape": (0, 9)}, "positive"),
        ({"overlap": 1.0}, "overlap"),
        ({"nphotons": 0.0}, "nphotons"),
        ({"photons": 1.0}, "photons"),
    ],
)
def test_configurations_that_are_refused(change, words):
    """[SIM-035]"""
    with pytest.raises(ValidationError, match=words):
        small(**change)


def test_scans_that_do_not_fit_are_refused():
    """[SIM-035]"""
    with pytest.raises(ConfigError, match="the object has 40 x 40"):
        simulate_scan(small(object_shape=(40, 40)))
    with pytest.raises(ConfigError, match="N is 32"):
        simulate_scan(small(), probe=np.ones((1, 16, 16), complex))
    with pytest.raises(ConfigError, match="0 x 3"):
        scan_positions("raster", 0, 3, 1.0)
