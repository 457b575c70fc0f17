"""The one scaling rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.errors import DataError
from ptychopinn.forward import expected_counts, far_field, intensity

N = 32


def scan(factor=1.0, probe_factor=1.0, roll=(0, 0), bad=None, modes=2):
    rng = np.random.default_rng(3)
    r = np.arange(N) - (N - 1) / 2
    probe = np.exp(-(r[:, None] ** 2 + r[None, :] ** 2) / 40 * (1 - 0.4j)) * np.array([30.0, 10.0])[:modes, None, None]
    obj = np.exp(0.2j * rng.random((60, 60)))
    positions = rng.uniform(20, 40, (12, 2))
    counts = np.roll(expected_counts(obj, probe, positions), roll, (1, 2)) * factor
    return ScanDataset(
        counts.astype(np.float32),
        Measurement.COUNTS,
        positions,
        probe * probe_factor,
        object_guess=obj,
        bad_pixels=bad,
    )


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-3, 1e6), st.floats(1e-4, 1e4), st.sampled_from(list(Measurement)))
def test_dose_changes_neither_input_nor_object(factor, probe_factor, measurement):
    """[DATA-090]"""
    one = scan()
    other = scan(factor, probe_factor)
    if measurement is Measurement.AMPLITUDE:
        other = ScanDataset(
            np.sqrt(other.patterns) / 7, measurement, other.positions, other.probe, counts_per_unit=49.0
        )
    a, b = fit_scaling(one), fit_scaling(other)
    everything = slice(None)
    np.testing.assert_allclose(
        other.counts(everything) * b.input_scale**2, one.counts(everything) * a.input_scale**2, rtol=2e-5, atol=1e-7
    )
    assert b.mean_counts == pytest.approx(a.mean_counts * factor, rel=1e-5)
    for follow in (False, True):
        pa, pb = (
            probe_in_counts(d, s, follow_offset=follow) / np.sqrt(s.mean_counts) for d, s in ((one, a), (other, b))
        )
        np.testing.assert_allclose(pb, pa, atol=1e-4 * np.abs(pa).max())
    np.testing.assert_allclose(b.detector_offset_px, a.detector_offset_px, atol=1e-4)


def test_the_probe_carries_the_counts_and_the_input_is_one():
    """[DATA-090] Parseval: the probe's energy is the mean count of a pattern, through an object of amplitude 1."""
    data = scan()
    scaling = fit_scaling(data)
    probe = probe_in_counts(data, scaling, follow_offset=False)
    assert probe.dtype == np.complex64
    assert (np.abs(probe) ** 2).sum() == pytest.approx(scaling.mean_counts, rel=1e-5)
    amplitude = np.sqrt(data.counts(slice(None))) * scaling.input_scale
    assert np.sqrt((amplitude**2).mean()) == pytest.approx(1, rel=1e-5)
    # so the forward model with an object of modulus 1 predicts the counts
    np.testing.assert_allclose(
        expected_counts(data.object_guess, probe, data.positions), data.counts(slice(None)), rtol=2e-3, atol=0.05
    )


@pytest.mark.parametrize("roll", [(2, 0), (0, -2), (2, -3)])
def test_a_detector_offset_is_found_and_followed(roll):
    """[DATA-091]"""
    data = scan(roll=roll)
    scaling = fit_scaling(data)
    np.testing.assert_allclose(scaling.detector_offset_px, fit_scaling(scan()).detector_offset_px + roll, atol=0.05)
    np.testing.assert_allclose(scaling.detector_offset_px, roll, atol=0.4)
    plain, ramped = (
        intensity(probe_in_counts(data, scaling, follow_offset=follow)[None])[0] for follow in (False, True)
    )
    mean = data.counts(slice(None)).mean(axis=0)
    assert np.abs(ramped - mean).sum() < 0.5 * np.abs(plain - mean).sum()


@pytest.mark.parametrize(("scattered", "image"), [(0.15, True), (0.5, False)])
def test_light_scattered_to_one_side_does_not_move_the_patterns(scattered, image):
    """[DATA-091] If they hardly look like the probe's far field, only their centres of mass can be compared."""
    data = scan(modes=1)
    alone = intensity(data.probe[None])[0]
    aside = np.roll(alone, (0, 6), (0, 1))
    counts = np.repeat(((1 - scattered) * alone + scattered * aside)[None], 3, axis=0)
    there = ScanDataset(counts, Measurement.COUNTS, data.positions[:3], data.probe)
    x = 0 if image else 6 * scattered
    np.testing.assert_allclose(fit_scaling(there).detector_offset_px, (0, x), atol=0.1)


def test_bad_pixels_are_left_out_of_both():
    """[DATA-090] [DATA-091] Whatever the mask hides, the scale of the probe is the same."""
    bad = np.zeros((N, N), bool)
    bad[14:18, 15:20] = True
    masked, whole = fit_scaling(scan(bad=bad)), fit_scaling(scan())
    assert masked.mean_counts < 0.8 * whole.mean_counts
    assert masked.probe_scale == pytest.approx(whole.probe_scale, rel=0.05)
    np.testing.assert_allclose(masked.detector_offset_px, whole.detector_offset_px, atol=0.4)


def test_another_probe_can_be_fitted():
    data = scan()
    assert fit_scaling(data, 5 * data.probe).probe_scale == pytest.approx(fit_scaling(data).probe_scale / 5, rel=1e-5)


def test_the_circular_mask_is_zero_outside():
    data = scan()
    probe = probe_in_counts(data, fit_scaling(data), follow_offset=False, circular_mask=True)
    r = np.hypot(*np.meshgrid(np.arange(N) - 15.5, np.arange(N) - 15.5))
    assert (probe[:, r > 16] == 0).all()
    assert (probe[:, r < 10] != 0).all()
    assert np.isfinite(far_field(probe)).all()


def test_what_cannot_be_scaled_is_refused():
    data = scan()
    for broken, said in [
        (data.select(np.zeros(0, int)), "no patterns"),
        (scan(factor=0.0), "0 photons"),
        (scan(probe_factor=0.0), "no energy"),
        (scan(bad=np.ones((N, N), bool)), "0 photons"),
    ]:
        with pytest.raises(DataError, match=said):
            fit_scaling(broken)
