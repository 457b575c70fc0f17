"""Simulated positions and scans. Requirements: specs/02-simulation.md."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial import cKDTree

from ptychopinn.arrays import NUMPY
from ptychopinn.config.simulation import SimulationConfig
from ptychopinn.data.dataset import Measurement
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import ConfigError
from ptychopinn.forward import expected_counts
from ptychopinn.geometry import split_positions
from ptychopinn.monitor import Monitor
from ptychopinn.simulate import (
    probe_width_px,
    scan,
    scan_positions,
    simulate_object,
    simulate_probe,
    simulate_scan,
    simulated_truth,
)
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


REAL = {
    "flux_deviation": 0.2,
    "background_share": 0.1,
    "position_error_px": 1.0,
    "position_scale_error": 0.1,
    "drift_px": 5.0,
    "fly_px": 4.0,
    "saturation_counts": 50,
}
STAGE = ("position_error_px", "position_scale_error", "drift_px")


@pytest.mark.parametrize("name", REAL)
def test_an_effect_leaves_what_it_does_not_act_on(name):
    """[SIM-037] [SIM-038] object and true positions always, patterns where the stage is off, positions elsewhere."""
    plain, changed = simulate_scan(small()), simulate_scan(small(**{name: REAL[name]}))
    np.testing.assert_array_equal(plain.object_guess, changed.object_guess)
    np.testing.assert_array_equal(plain.positions, simulated_truth(small(**{name: REAL[name]})).positions)
    assert np.array_equal(plain.patterns, changed.patterns) == (name in STAGE)
    assert np.array_equal(plain.positions, changed.positions) == (name not in STAGE)


@pytest.mark.parametrize("name", REAL)
def test_an_effect_does_not_change_the_random_numbers_of_another(name):
    """[SIM-037]"""
    everything, without = small(**REAL), small(**REAL | {name: SimulationConfig.model_fields[name].default})
    if name != "flux_deviation":
        np.testing.assert_array_equal(simulated_truth(everything).flux, simulated_truth(without).flux)
    if name not in STAGE:
        np.testing.assert_array_equal(simulate_scan(everything).positions, simulate_scan(without).positions)


def test_a_scan_is_that_of_its_seed_before_there_were_effects():
    """[SIM-037]"""
    data = simulate_scan(small(seed=7, bad_pixel_fraction=0.1))
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(7).spawn(4)]
    step = step_px(small(), data.probe)
    centred = scan_positions("jittered", 3, 4, step, jitter_px=1.0, rng=streams[1])
    positions = centred + (np.array(data.object_guess.shape) - 1) / 2
    np.testing.assert_array_equal(data.positions, positions)
    obj = simulate_object("textured", data.object_guess.shape, streams[0], amplitude=(0.4, 1.0), phase_rad=(-1.0, 1.0))
    np.testing.assert_array_equal(data.object_guess, obj)
    good = streams[3].random((32, 32)) >= 0.1
    np.testing.assert_array_equal(data.patterns, streams[2].poisson(expected_counts(obj, data.probe, positions)) * good)


def test_flux_is_log_normal_of_mean_one_and_scales_the_patterns():
    """[SIM-037] [SIM-039]"""
    flux = simulated_truth(small(rows=60, cols=60, flux_deviation=0.3, object_kind="letter")).flux
    assert flux.mean() == pytest.approx(1, abs=4 * 0.3 / 60)
    assert flux.std() == pytest.approx(0.3, rel=0.06)
    logarithms = np.log(flux)
    assert np.mean((logarithms - logarithms.mean()) ** 3) == pytest.approx(0, abs=0.15 * float(logarithms.std()) ** 3)
    plain, config = simulate_scan(small(nphotons=1e6)), small(nphotons=1e6, flux_deviation=0.3)
    sums = simulate_scan(config).patterns.sum(axis=(1, 2)) / plain.patterns.sum(axis=(1, 2))
    np.testing.assert_allclose(sums, simulated_truth(config).flux, rtol=0.01)


def test_the_background_is_a_share_of_the_mean_counts():
    """[SIM-037] [SIM-039]"""
    config = small(rows=8, cols=8, nphotons=1e5, background_share=0.1, flux_deviation=0.2, fly_px=3.0)
    clean, data = simulate_scan(config.model_copy(update={"background_share": 0.0})), simulate_scan(config)
    background = simulated_truth(config).background
    added = data.patterns.mean(axis=0) - clean.patterns.mean(axis=0)
    assert background.sum() == pytest.approx(0.1 * clean.patterns.sum() / 64, rel=2e-3)
    assert added.sum() == pytest.approx(background.sum(), rel=0.02)
    dark = clean.patterns.max(axis=0) < 20  # where the noise of the patterns does not hide it
    assert dark.sum() > 300
    assert (added - background)[dark].mean() == pytest.approx(0, abs=0.05 * float(background.mean()))
    # exp(-1/2) at half of N from the middle, along each axis
    line = background.sum(axis=0)
    assert line[0] / line[16] == pytest.approx(np.exp(-0.5 * (15.5**2 - 0.5**2) / 16**2), rel=1e-5)
    np.testing.assert_allclose(background, background[::-1, ::-1].T, rtol=1e-5)


def test_recorded_positions_have_normal_errors_around_the_true_ones():
    """[SIM-038] [SIM-039]"""
    config = small(rows=30, cols=30, position_error_px=2.0, object_kind="letter")
    errors = simulate_scan(config).positions - simulated_truth(config).positions
    np.testing.assert_allclose(errors.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(errors.std(axis=0), 2, rtol=0.1)
    assert np.corrcoef(errors.T)[0, 1] == pytest.approx(0, abs=0.15)
    assert np.corrcoef(errors[1:, 0], errors[:-1, 0])[0, 1] == pytest.approx(0, abs=0.15)


def test_recorded_positions_are_scaled_about_their_mean():
    """[SIM-038]"""
    config = small(position_scale_error=-0.05)
    true = simulated_truth(config).positions
    middle = true.mean(axis=0)
    np.testing.assert_allclose(simulate_scan(config).positions, middle + 0.95 * (true - middle))


def test_a_drift_grows_with_the_square_of_the_time():
    """[SIM-038]"""
    config = small(drift_px=6.0)
    off = simulate_scan(config).positions - simulated_truth(config).positions
    np.testing.assert_allclose(off.mean(axis=0), 0, atol=1e-9)
    distance = np.hypot(*(off - off[0]).T)
    np.testing.assert_allclose(distance, 6 * (np.arange(12) / 11) ** 2, atol=1e-9)
    assert np.linalg.matrix_rank(off - off[0], tol=1e-9) == 1
    other = simulate_scan(small(drift_px=6.0, seed=1)).positions - simulated_truth(small(seed=1)).positions
    assert not np.allclose(other, off)


def test_an_exposure_of_a_fly_scan_is_the_mean_over_its_way():
    """[SIM-037] against many points of a way along x, not along y."""
    config = small(scan_kind="raster", nphotons=1e7, fly_px=5.0)
    data, obj = simulate_scan(config), simulated_truth(config).object
    way = (np.arange(100) + 0.5) / 100 * 5.0 - 2.5
    along_y, along_x = (
        np.mean([expected_counts(obj, data.probe, data.positions + t * np.array(axis)) for t in way], axis=0)
        for axis in ((1, 0), (0, 1))
    )
    at_rest = expected_counts(obj, data.probe, data.positions)
    errors = [np.abs(data.patterns - mean).sum() / mean.sum() for mean in (along_x, along_y, at_rest)]
    assert errors[0] < 0.02
    assert min(errors[1:]) > 4 * errors[0]


def test_saturated_pixels_record_the_limit():
    """[SIM-037]"""
    plain, data = simulate_scan(small()), simulate_scan(small(saturation_counts=30))
    assert (plain.patterns > 30).sum() > 50
    np.testing.assert_array_equal(data.patterns, np.minimum(plain.patterns, 30))


def test_true_patches_are_those_of_the_true_positions():
    """[SIM-038]"""
    plain, off = (simulate_scan(small(write_patches=True, position_error_px=e)) for e in (0.0, 3.0))
    assert not np.array_equal(plain.positions, off.positions)
    np.testing.assert_array_equal(plain.patches_guess, off.patches_guess)


def test_the_truth_of_a_file_comes_from_its_settings(tmp_path):
    """[SIM-039]"""
    config = small(**REAL, probe_modes=2)
    write_scan(tmp_path / "scan.npz", simulate_scan(config))
    data = read_scan(tmp_path / "scan.npz")
    truth = simulated_truth(SimulationConfig(**data.metadata.model_extra["simulation"]))
    np.testing.assert_array_equal(truth.object, data.object_guess)
    np.testing.assert_array_equal(truth.probe, data.probe)
    way = np.array([(0, x) for x in (-1.6, -0.8, 0, 0.8, 1.6)])
    mean = np.mean([expected_counts(truth.object, truth.probe, truth.positions + place) for place in way], axis=0)
    expected = mean * truth.flux[:, None, None] + truth.background
    below = expected < 30  # none of them saturates
    chi2 = ((data.counts(slice(None)) - expected)[below] ** 2 / expected[below]).mean()
    assert chi2 == pytest.approx(1, abs=6 * np.sqrt(2 / below.sum()) + 0.01)


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
        ({"scan_kind": "spiral", "fly_px": 1.0}, "scan lines"),
        ({"fly_px": 17.0}, "fly_px"),
        ({"flux_deviation": -0.1}, "flux_deviation"),
        ({"background_share": 1.5}, "background_share"),
        ({"position_error_px": -1.0}, "position_error_px"),
        ({"position_scale_error": -1.0}, "position_scale_error"),
        ({"drift_px": float("nan")}, "drift_px"),
        ({"saturation_counts": 0}, "saturation_counts"),
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
