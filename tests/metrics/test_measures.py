"""Figures with known values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from ptychopinn.errors import DataError, ScoreError
from ptychopinn.metrics import Aligned, ScanBox, align, ms_ssim, score
from ptychopinn.metrics.measures import ssim_terms


def pair(g, r):
    return Aligned(np.asarray(g, complex), np.asarray(r, complex), (0.0, 0.0), (0.0, 0.0), 1 + 0j, True, 0)


def test_every_figure_is_there(make_object):
    """[MET-007] The names of the figures."""
    keys = ("mae", "mse", "psnr", "ssim", "ms_ssim", "frc50", "corr")
    wanted = {f"{quantity}_{key}" for quantity in ("amp", "phase") for key in keys} | {"nrmse"}
    figures = score(pair(make_object(), make_object(seed=1)))
    assert set(figures) == wanted
    assert all(type(v) is float for v in figures.values())


def test_identical_pictures(make_object):
    """[MET-007] Perfect figures, all finite."""
    figures = score(pair(make_object(), make_object()))
    for quantity in ("amp", "phase"):
        assert figures[f"{quantity}_mae"] == figures[f"{quantity}_mse"] == 0
        assert figures[f"{quantity}_psnr"] == 313
        assert figures[f"{quantity}_frc50"] == 0.5
        for key in ("ssim", "ms_ssim", "corr"):
            assert figures[f"{quantity}_{key}"] == pytest.approx(1)
    assert figures["nrmse"] == 0


def test_known_errors(make_object):
    """[MET-007] An offset of 0.1 in amplitude with a range of 1: error 0.1, 0.01, and 20 dB, not 68 dB."""
    g = make_object()
    r = (np.abs(g) + 0.1) * np.exp(1j * np.angle(g))
    figures = score(pair(g, r), amp_range=1.0, phase_range=2.0)
    assert figures["amp_mae"] == pytest.approx(0.1)
    assert figures["amp_mse"] == pytest.approx(0.01)
    assert figures["amp_psnr"] == pytest.approx(20)
    assert figures["phase_mae"] == pytest.approx(0, abs=1e-12)
    assert figures["nrmse"] == pytest.approx(0.1 * np.sqrt(g.size) / np.linalg.norm(g))
    turned = score(pair(g, g * np.exp(0.2j)), amp_range=1.0, phase_range=2.0)
    assert turned["phase_mae"] == pytest.approx(0.2)
    assert turned["phase_psnr"] == pytest.approx(20)
    assert turned["amp_mae"] == pytest.approx(0, abs=1e-12)


def test_data_range(make_object):
    """[MET-008] The percentile spread of the reference unless a range is given."""
    g, r = make_object(), make_object(seed=1)
    amplitude, phase = np.abs(g), np.angle(g * np.exp(-1j * np.angle(g.mean())))
    spread = [float(np.percentile(v, 99.5) - np.percentile(v, 0.5)) for v in (amplitude, phase)]
    assert score(pair(g, r)) == score(pair(g, r), amp_range=spread[0], phase_range=spread[1])
    fixed = score(pair(g, r), amp_range=0.6, phase_range=2.0)
    assert fixed["amp_ssim"] == pytest.approx(structural_similarity(amplitude, np.abs(r), data_range=0.6))
    assert fixed["amp_ssim"] != pytest.approx(score(pair(g, r))["amp_ssim"], rel=1e-3)
    specks = g.copy()
    specks.real[:] = np.where(np.arange(g.size).reshape(g.shape) == 900, 1.0, 0.5)
    assert np.isfinite(score(pair(specks.real, g))["amp_ssim"])  # equal percentiles: the whole range
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(DataError, match="data range of the phase"):
            score(pair(g, r), phase_range=bad)


def test_correlation_ignores_gain_and_offset(make_object):
    """[MET-007] Pearson's correlation of amplitudes."""
    g = make_object()
    r = (2 * np.abs(g) + 1) * np.exp(-1j * np.angle(g))
    figures = score(pair(g, r))
    assert figures["amp_corr"] == pytest.approx(1)
    assert figures["phase_corr"] == pytest.approx(-1, abs=0.02)


def test_ssim_terms_multiply_to_the_library_s_ssim(make_object):
    """[MET-010] Luminance times contrast and structure is scikit-image's SSIM with Gaussian weights."""
    a, b = np.abs(make_object()), np.abs(make_object(seed=1))
    luminance, contrast = ssim_terms(a, b, 0.7)
    wanted = structural_similarity(a, b, data_range=0.7, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert (luminance * contrast).mean() == pytest.approx(wanted, abs=1e-12)


def test_ms_ssim_of_one_scale_is_ssim(make_object):
    """[MET-010] Too small for a second scale: plain SSIM."""
    a, b = (np.abs(make_object((21, 40), seed)) for seed in (0, 1))
    wanted = structural_similarity(a, b, data_range=0.5, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert wanted > 0
    assert ms_ssim(a, b, 0.5) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("size", [11, 22, 43, 90, 180])
def test_ms_ssim_known_values(size):
    """[MET-010] One for identical pictures of any size, less for noise, none for the opposite."""
    rng = np.random.default_rng(0)
    a = 3 + rng.normal(size=(size, size + 3))
    assert ms_ssim(a, a, 4.0) == pytest.approx(1)
    with pytest.raises(ScoreError, match=r"MS-SSIM cannot be computed: its term of scale 1 of \d is -"):
        ms_ssim(a, 6 - a, 4.0)
    faint, strong = (ms_ssim(a, a + s * rng.normal(size=a.shape), 4.0) for s in (0.3, 1.0))
    assert 0 < strong < faint < 1


def test_figures_agree_with_another_library():
    """[MET-007] [MET-010] Values of TensorFlow 2.21: ssim_multiscale and psnr of these pictures, range 1.2."""
    y, x = np.mgrid[:200, :230]
    a = 0.5 + 0.3 * np.sin(0.11 * x + 0.05 * y) + 0.2 * np.cos(0.31 * y - 0.07 * x) * np.sin(0.9 * x)
    b = 0.9 * a + 0.05 + 0.1 * np.sin(0.5 * x) * np.cos(0.37 * y) + 0.05 * np.sin(1.3 * x + 0.8 * y)
    assert ms_ssim(a, b, 1.2) == pytest.approx(0.942203, abs=2e-5)  # theirs is in single precision
    assert score(pair(a + 2, b + 2), amp_range=1.2)["amp_psnr"] == pytest.approx(25.245957, abs=1e-4)


def test_ms_ssim_follows_the_published_weights():
    """[MET-010] Five scales: the contrast terms and the last luminance to Wang's weights."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=(176, 176))
    b = a + rng.normal(size=a.shape)
    result, pictures = 1.0, (a, b)
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        luminance, contrast = ssim_terms(*pictures, 4.0)
        result *= ((luminance * contrast).mean() if scale == 4 else contrast.mean()) ** weight
        if scale < 4:
            pictures = tuple((p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2]) / 4 for p in pictures)
    assert ms_ssim(a, b, 4.0) == pytest.approx(result ** (1 / 1.0001))  # the published weights sum to 1.0001
    with pytest.raises(DataError, match="11 x 11"):
        ms_ssim(a[:10], b[:10], 4.0)


def test_a_mirrored_picture_scores_badly(make_object):
    """[MET-007] Upright matters: swapped axes do not pass for the object."""
    obj = make_object((90, 90))
    figures = score(align(obj, obj.T, ScanBox(5, 85, 5, 85)))
    assert abs(figures["phase_corr"]) < 0.5
    assert figures["phase_ssim"] < 0.5


def test_ms_ssim_of_an_opposite_scale_is_no_number():
    """[MET-007] [MET-010] Detail agrees and slow waves are opposite: neither 0 nor any other number would say so."""
    detail = np.random.default_rng(8).normal(size=(256, 256))
    slow = 6 * np.cos(np.linspace(0, 6 * np.pi, 256))[:, None] * np.ones((1, 256))
    scores = score(pair(20 + detail + slow, 20 + detail - slow))
    assert np.isnan(scores["amp_ms_ssim"])
    assert "scale 2 of 5 is -" in scores.missing["amp_ms_ssim"]
    assert scores["amp_frc50"] == 0.5


_KINDS = {
    "object": lambda rng, shape: (1 + 0.2 * rng.normal(size=shape)) * np.exp(0.3j * rng.normal(size=shape)),
    "amplitude": lambda rng, shape: 1 + 0.2 * rng.normal(size=shape) + 0j,
    "phase": lambda rng, shape: np.exp(0.3j * rng.normal(size=shape)),
    "flat": lambda rng, shape: np.full(shape, 0.7 - 0.2j),
    "zero": lambda rng, shape: np.zeros(shape, complex),
    "masked": lambda rng, shape: np.where(np.arange(shape[1]) > 30, np.exp(1j * rng.normal(size=shape)), 0),
    "one speck": lambda rng, shape: 1 + (np.arange(np.prod(shape)).reshape(shape) == 5) * 1j,
}  # fmt: skip


@given(
    st.sampled_from(sorted(set(_KINDS) - {"zero"})), st.sampled_from(sorted(_KINDS)), st.integers(0, 99), st.booleans()
)
@settings(deadline=None)
def test_every_score_is_a_number_or_says_why_not(reference, reconstruction, seed, single):
    """[MET-005] [MET-007] For whatever pair; rounding to single precision does not turn one into the other."""
    rng, shape = np.random.default_rng(seed), (23, 40)
    g, r = _KINDS[reference](rng, shape), _KINDS[reconstruction](rng, shape)
    if single:
        g, r = g.astype(np.complex64), (r + 1e-8 * rng.normal(size=shape)).astype(np.complex64)
    scores = score(pair(g, r))
    assert {name for name, value in scores.items() if not np.isfinite(value)} == set(scores.missing)
    assert all("cannot be computed" in reason for reason in scores.missing.values())
    assert {name for name in scores if name.endswith("corr")} & set(scores.missing) == {
        f"{quantity}_corr"
        for quantity, constant in (
            ("amp", {"phase", "flat", "zero"}),
            ("phase", {"amplitude", "flat", "zero", "masked"}),
        )
        if {reference, reconstruction} & constant
    }
    flat_reference = {"amp": {"phase", "flat"}, "phase": {"amplitude", "flat", "masked"}}
    for quantity, kinds in flat_reference.items():
        assert (f"{quantity}_ssim" in scores.missing) == (
            reference in kinds or (quantity == "phase" and reconstruction in {"zero", "masked"})
        )
    assert ("cannot_be_computed" in scores.record) == bool(scores.missing)
    json.dumps(scores.record, allow_nan=False)
