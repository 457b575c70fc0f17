"""The stream of training patches and its noise. Requirements: specs/02-simulation.md."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from ptychopinn.errors import ConfigError
from ptychopinn.forward import detector_ramp, intensity
from ptychopinn.simulate import ObjectStream, simulate_probe
from ptychopinn.simulate.noise import EXACT_BELOW, quick_poisson
from ptychopinn.simulate.stream import _ramps

N = 32
COUNTS = 1e5


def stream(probe=None, mean_counts=COUNTS, bad_pixels=None, seed=0, patch_size=None, **options):
    probe = simulate_probe("disc", N, photons=mean_counts) if probe is None else probe
    options = {"object_size_px": 64, "pool_size": 4, "batches_an_object": 2} | options
    return ObjectStream(probe, mean_counts, bad_pixels, seed, patch_size, **options)


def test_shapes_and_types():
    """[SIM-040]"""
    counts, patches = stream().batch(5)
    assert (counts.shape, counts.dtype) == ((5, N, N), np.float32)
    assert (patches.shape, patches.dtype) == ((5, N // 2, N // 2), np.complex64)
    np.testing.assert_array_equal(counts, np.rint(counts))
    assert counts.min() >= 0
    assert stream().batch(0)[0].shape == (0, N, N)


@pytest.mark.parametrize("modes", [1, 2])
def test_counts_are_those_of_the_patches(modes):
    """[SIM-040] the reference forward model, given patches as wide as the window, predicts the counts."""
    made = stream(simulate_probe("disc", N, photons=1.0, modes=modes), 1e9, patch_size=N)
    counts, patches = made.batch(4)
    mean = intensity(patches[:, None] * made.probe)
    assert mean.dtype == np.float32
    assert np.abs(counts - mean).sum() < 2e-3 * mean.sum()


@pytest.mark.parametrize("n", [15, 16, 20])
def test_patches_are_the_centre(n):
    """[SIM-040]"""
    wide, narrow = stream(patch_size=N).batch(3)[1], stream(patch_size=n).batch(3)[1]
    start = (N - n) // 2
    np.testing.assert_array_equal(narrow, wide[:, start : start + n, start : start + n])


def test_energy():
    """[SIM-041] of the probe on the good pixels, and of objects over a long run."""
    bad = np.zeros((N, N), bool)
    bad[N // 2 - 2 : N // 2 + 2, N // 2] = True
    made = stream(bad_pixels=bad, object_size_px=128, pool_size=16)
    pattern = intensity(made.probe[None])[0]
    assert pattern[~bad].sum() == pytest.approx(COUNTS, rel=1e-4)
    assert pattern.sum() > 1.05 * COUNTS
    batches = [made.batch(32) for _ in range(20)]
    assert not any(counts[:, bad].any() for counts, _ in batches)
    assert np.mean([np.abs(patches) ** 2 for _, patches in batches]) == pytest.approx(1, abs=0.1)
    for obj in made._pool.objects.values():
        assert np.mean(np.abs(obj) ** 2) == pytest.approx(1, rel=1e-4)


def test_a_batch_depends_on_its_number_alone():
    """[SIM-042] however the stream got there."""
    walked, jumped = stream(), stream()
    batches = [walked.batch(3) for _ in range(8)]
    for k in (7, 2, 5):
        counts, patches = jumped.at(k).batch(3)
        assert jumped.step == k + 1
        np.testing.assert_array_equal(counts, batches[k][0])
        np.testing.assert_array_equal(patches, batches[k][1])
    assert not np.array_equal(batches[0][0], batches[1][0])
    assert not np.array_equal(batches[0][0], stream(seed=1).batch(3)[0])


def test_the_pool_is_renewed():
    """[SIM-043] one object at a time; the one that went last is kept for slower threads."""
    made = stream()
    pools = []
    for _ in range(14):
        made.batch(1)
        pools.append(set(made._pool.objects))
    assert pools[0] == pools[1] == {0}
    assert pools[-1] == {2, 3, 4, 5, 6}
    assert all(len(new - old) <= 1 for old, new in pairwise(pools))
    assert max(map(len, pools)) == 4 + 1
    assert len(made._objects()) == 4


def test_windows_are_cut_turned_and_flipped():
    """[SIM-043] all eight ways of laying a square occur, nothing is interpolated."""
    made = stream(patch_size=N, pool_size=1, batches_an_object=1000, object_size_px=N)
    _, patches = made.batch(64)
    (obj,) = made._pool.objects.values()
    ways = [w[::u, ::v] for w in (obj, obj.T) for u in (1, -1) for v in (1, -1)]
    found = {next(i for i, way in enumerate(ways) if np.array_equal(patch, way)) for patch in patches}
    assert found == set(range(8))


def test_dose_changes_the_noise_alone():
    """[SIM-044]"""
    pure = stream(mean_counts=1e9).batch(16)[0] * 1e-4
    noisy, dark = stream().batch(16)[0], stream(dose_range=(0.01, 0.01)).batch(16)[0]
    assert dark.sum() == pytest.approx(noisy.sum(), rel=0.02)
    noise = [np.sum((c - pure) ** 2) for c in (noisy, dark)]
    assert noise[1] / noise[0] == pytest.approx(100, rel=0.5)
    counts = stream(dose_range=(0.1, 10.0)).batch(64)[0]
    steps = np.array([c[c > 0].min() for c in counts])  # one photon of each
    assert steps.min() < 0.2
    assert steps.max() > 5


def test_offsets_move_patterns_on_the_detector():
    """[SIM-044]"""
    made = stream(patch_size=N, mean_counts=1e8, amplitude_contrast=(0, 0), phase_span_rad=(0, 0), offset_jitter_px=2.0)
    counts, patches = made.batch(32)
    np.testing.assert_allclose(patches, 1, atol=1e-5)
    i = np.arange(N) - N // 2
    y, x = (counts.sum(axis=axis) @ i / counts.sum(axis=(1, 2)) for axis in (2, 1))
    assert 1.2 < np.std([y, x]) < 2.8
    assert abs(np.corrcoef(y, x)[0, 1]) < 0.5
    np.testing.assert_allclose(
        _ramps(np.array([[0.7, -1.3]]), N)[0], detector_ramp(np.array([0.7, -1.3]), N), atol=1e-5
    )


def test_contrast_and_kinds_are_the_callers():
    """[SIM-043]"""
    made = stream(kinds=["star"], amplitude_contrast=(0.5, 0.5), phase_span_rad=(1.0, 1.0), pool_size=1)
    made.batch(1)
    (obj,) = made._pool.objects.values()
    assert np.abs(obj).min() / np.abs(obj).max() == pytest.approx(0.5, rel=1e-3)
    assert np.ptp(np.angle(obj)) == pytest.approx(1, rel=1e-3)


def test_another_probe():
    made = stream(patch_size=N, mean_counts=1e8)
    made.set_probe(simulate_probe("gaussian", N, photons=7.0))
    counts, patches = made.batch(2)
    mean = intensity(patches[:, None] * simulate_probe("gaussian", N, photons=1e8))
    assert np.abs(counts - mean).sum() < 5e-3 * mean.sum()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"probe": np.ones((8, 8))}, r"\(8, 8\)"),
        ({"probe": np.zeros((1, N, N))}, "no energy"),
        ({"patch_size": N + 1}, "33"),
        ({"object_size_px": N - 1}, "31"),
        ({"kinds": []}, "kinds"),
        ({"kinds": ["textured", "letter"]}, "letter"),
        ({"mean_counts": 0.0, "probe": np.ones((1, N, N))}, "mean_counts"),
        ({"pool_size": 0}, "pool_size 0"),
        ({"dose_range": (0.0, 1.0)}, "dose_range"),
    ],
)
def test_refusals(options, words):
    """[SIM-035]"""
    with pytest.raises(ConfigError, match=words):
        stream(**options)
    with pytest.raises(ConfigError, match="count from 0"):
        stream().at(-1)


@pytest.mark.parametrize("mean", [0.0, 1e-3, 0.3, 1.9, 2.1, 9.0, 15.9, 16.1, 40.0, 3e3])
def test_quick_poisson_is_poisson(mean):
    """[SIM-045] mean, variance and the whole distribution, on either side of every change of method."""
    size = 200_000
    counts = quick_poisson(np.full(size, mean, np.float32), np.random.default_rng(0))
    assert counts.dtype == np.float32
    np.testing.assert_array_equal(counts, np.rint(counts))
    assert counts.min() >= 0
    assert counts.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / size))
    assert counts.var() == pytest.approx(mean, abs=6 * np.sqrt((2 * mean**2 + mean) / size))
    levels = np.arange(int(stats.poisson.ppf(1 - 1e-7, mean)) + 2)
    found = np.bincount(counts.astype(int), minlength=len(levels))[: len(levels)] / size
    exact = stats.poisson.pmf(levels, mean)
    sampling = np.sqrt(exact / size).sum() / 2  # what a sample of this size is off by
    assert np.abs(found - exact).sum() / 2 < sampling + (0 if mean < EXACT_BELOW else 2e-3)


def test_quick_poisson_keeps_shapes_and_mixes_methods():
    """[SIM-045]"""
    mean = np.array([[0.0, 1.0, 5.0], [30.0, 1e4, 1e6]], np.float32)
    drawn = np.stack([quick_poisson(mean, np.random.default_rng(s)) for s in range(400)])
    assert drawn.shape == (400, 2, 3)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=1e-6, rtol=0.2)
    assert quick_poisson(np.zeros((0, 4, 4), np.float32), np.random.default_rng(0)).shape == (0, 4, 4)
