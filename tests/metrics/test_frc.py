"""Fourier ring correlation against known values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ptychopinn.errors import DataError, ScoreError
from ptychopinn.metrics import FrcCurve, frc, frc50


@pytest.mark.parametrize("shape", [(64, 64), (65, 90), (4, 7)])
def test_identical_pictures_correlate_at_every_frequency(shape):
    """[MET-009] One everywhere, and Nyquist as the resolution."""
    picture = np.random.default_rng(0).normal(size=shape)
    curve = frc(picture, 3 * picture + 7)  # gain and offset do not matter
    assert curve.correlation == pytest.approx(1)
    assert frc50(curve) == 0.5
    assert curve.frequency[0] == pytest.approx(1 / min(shape))
    assert len(curve.frequency) == min(shape) // 2
    assert curve.frequency[-1] <= 0.5


def test_independent_noise_does_not_correlate():
    """[MET-009] Near zero."""
    a, b = np.random.default_rng(1).normal(size=(2, 256, 256))
    curve = frc(a, b)
    assert abs(curve.correlation[8:].mean()) < 0.02
    assert abs(curve.correlation[20:]).max() < 0.3


@pytest.mark.parametrize("cutoff", [0.1, 0.25, 0.4])
def test_low_passed_copy_crosses_at_its_cutoff(cutoff):
    """[MET-009] A copy without the frequencies above a cut-off, plus faint noise, is resolved to the cut-off."""
    rng = np.random.default_rng(2)
    picture = rng.normal(size=(128, 128))
    radius = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None, :])
    passed = np.fft.ifft2(np.fft.fft2(picture) * (radius < cutoff)).real
    assert frc50(frc(picture, passed + 1e-3 * rng.normal(size=picture.shape))) == pytest.approx(cutoff, abs=2 / 128)


def test_known_signal_to_noise():
    """[MET-009] A picture and its copy with noise of equal power correlate as 1 / sqrt(2)."""
    a, b = np.random.default_rng(3).normal(size=(2, 256, 256))
    assert frc(a, a + b).correlation[30:].mean() == pytest.approx(np.sqrt(0.5), abs=0.01)


@pytest.mark.parametrize("snr", [0.5, 1.0, 3.0])
def test_two_noisy_copies(snr):
    """[MET-009] Copies with noise of their own correlate as SNR / (1 + SNR): Frank & Al-Ali, Nature 256, 376 (1975)."""
    signal, one, two = np.random.default_rng(7).normal(size=(3, 512, 512))
    curve = frc(signal + one / np.sqrt(snr), signal + two / np.sqrt(snr))
    assert curve.correlation[30:].mean() == pytest.approx(snr / (1 + snr), abs=0.01)


def test_the_crossing_of_a_known_course():
    """[MET-009] Noise that grows with frequency: FRC50 is where its power reaches that of the signal."""
    rng = np.random.default_rng(8)
    signal, one, two = rng.normal(size=(3, 512, 512))
    radius = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512)[None, :])
    grown = [np.fft.ifft2(np.fft.fft2(noise) * (radius / 0.3) ** 2).real for noise in (one, two)]
    assert frc50(frc(signal + grown[0], signal + grown[1])) == pytest.approx(0.3, abs=0.015)


def test_opposite_and_empty_pictures():
    """[MET-009] A negative correlates with -1; without signal nothing can be said."""
    picture = np.random.default_rng(4).normal(size=(32, 32))
    assert frc(picture, -picture).correlation == pytest.approx(-1)
    assert frc50(frc(picture, -picture)) == 0
    flat = frc(picture, np.full((32, 32), 0.1))
    assert np.isfinite(flat.correlation).all()
    with pytest.raises(ScoreError, match="a picture is constant"):
        frc50(flat)


def test_complex_pictures():
    """[MET-009] Complex objects may be compared as they are."""
    re, im = np.random.default_rng(5).normal(size=(2, 32, 32))
    assert frc(re + 1j * im, re + 1j * im).correlation == pytest.approx(1)
    assert frc(re + 1j * im, re - 1j * im).correlation[4:].mean() < 0.2


def test_other_shapes_are_refused():
    """[MET-006] Two shapes do not correlate."""
    with pytest.raises(DataError, match=r"\(8, 8\) and \(8, 9\)"):
        frc(np.zeros((8, 8)), np.zeros((8, 9)))


def test_edges_of_a_cut_out_do_not_correlate():
    """[MET-009] A shared slope is a jump at the edges: it must not pass for shared detail."""
    rng = np.random.default_rng(6)
    slope = np.linspace(-60, 60, 128)[:, None] + np.linspace(-60, 60, 128)[None, :]
    a, b = rng.normal(size=(2, 128, 128)) + slope
    assert abs(frc(a, b).correlation[8:].mean()) < 0.05


def test_rounding_is_no_signal() -> None:
    """[MET-009] A picture that is constant but for its rounding correlates with nothing, not even with itself."""
    rng = np.random.default_rng(0)
    flat = (1 + 1e-7 * rng.standard_normal((32, 32))).astype(np.float32)
    assert (frc(flat, flat).correlation == 0).all()
    with pytest.raises(ScoreError, match="a picture is constant"):
        frc50(frc(flat, flat))
    weak = 1 + 1e-3 * rng.standard_normal((32, 32))
    assert frc50(frc(weak, weak)) == 0.5


def test_a_slow_error_does_not_end_the_search():
    """[MET-009] Two pictures that agree in all but the longest waves agree down to their detail."""
    rng = np.random.default_rng(7)
    detail = rng.normal(size=(128, 128))
    rows = np.linspace(0, 2 * np.pi, 128, endpoint=False)[:, None]
    slow = 30 * np.cos(rows) * np.ones((1, 128))
    curve = frc(detail + slow, detail - slow)
    assert curve.correlation[0] < 0
    assert frc50(curve) == 0.5


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.9, 0.2, 0.1, 0.1], 0),  # one ring above is chance
        ([0.1, 0.9, 0.9, 0.9, 0.1], 4.5 / 20),
        ([0.9, 0.1, 0.9, 0.9, 0.9], 0.5),  # a slow error may be in the second ring
        ([0.9, 0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9], 4.5 / 20),  # a later dip ends it
        ([0.9, 0.1, 0.9, 0.9, 0.1], 1.5 / 20),
        ([0.1, 0.1, 0.1], 0),
    ],
)
def test_where_the_search_begins(values, expected):
    """[MET-009]"""
    curve = FrcCurve(np.arange(1, len(values) + 1) / 20, np.array(values))
    assert frc50(curve) == pytest.approx(expected)


def test_agreement_after_a_longer_part_without_any_is_no_number():
    """[MET-009] Neither 0 nor the end of the agreement would be what the curve shows."""
    values = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.1, 0.1])  # fewer than were below
    with pytest.raises(ScoreError, match="first of 9 rings, and agree in no more than 3 rings in a row"):
        frc50(FrcCurve(np.arange(1, 10) / 20, values))


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-1, 1)))
def test_frc50_never_contradicts_its_curve(values):
    """[MET-009] Around the frequency the curve falls, before it most of the rings are above, and 0 means hardly any."""
    curve = FrcCurve(np.arange(1, len(values) + 1) / (2 * len(values)), values)
    above = values >= 0.5
    try:
        found = frc50(curve)
    except ScoreError:
        assert not values.any() or not above[0]
        return
    reached = curve.frequency <= found
    if found == 0:
        assert not (above[:-2] & above[1:-1] & above[2:]).any()  # no three in a row
    else:
        assert above[reached].mean() >= 0.4
        assert found == 0.5 or not above[curve.frequency >= found][0] or values[curve.frequency >= found][0] == 0.5
