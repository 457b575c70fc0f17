"""The stream of training patches and its noise. Requirements: specs/02-simulation.md."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from ptychopinn.errors import ConfigError
from ptychopinn.forward import intensity
from ptychopinn.simulate import ObjectStream, ObjectStreamOptions, simulate_probe
from ptychopinn.simulate.noise import EXACT_BELOW, quick_poisson
from ptychopinn.simulate.object_stream import RandomPool

N = 32
COUNTS = 1e5


def stream(probe=None, mean_counts=COUNTS, bad_pixels=None, seed=0, patch_size=None, **options):
    probe = simulate_probe("disc", N, photons=mean_counts) if probe is None else probe
    options = {"object_size_px": 64, "pool_size": 4, "batches_an_object": 2} | options
    return ObjectStream(probe, mean_counts, bad_pixels, seed, patch_size, ObjectStreamOptions(**options))


def test_shapes_and_types():
    """[SIM-040]"""
    counts, patches, probes = stream().batch(0, 5)
    assert probes is None
    assert (counts.shape, counts.dtype) == ((5, N, N), np.float32)
    assert (patches.shape, patches.dtype) == ((5, N // 2, N // 2), np.complex64)
    np.testing.assert_array_equal(counts, np.rint(counts))
    assert counts.min() >= 0
    assert stream().batch(0, 0).counts.shape == (0, N, N)


@pytest.mark.parametrize("modes", [1, 2])
def test_counts_are_those_of_the_patches(modes):
    """[SIM-040] the reference forward model, given patches as wide as the window, predicts the counts."""
    made = stream(simulate_probe("disc", N, photons=1.0, modes=modes), 1e9, patch_size=N)
    counts, patches, _ = made.batch(0, 4)
    mean = intensity(patches[:, None] * made.probe)
    assert mean.dtype == np.float32
    assert np.abs(counts - mean).sum() < 2e-3 * mean.sum()


@pytest.mark.parametrize("n", [15, 16, 20])
def test_patches_are_the_centre(n):
    """[SIM-040]"""
    wide, narrow = stream(patch_size=N).batch(0, 3).patches, stream(patch_size=n).batch(0, 3).patches
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
    batches = [made.batch(step, 32) for step in range(20)]
    assert not any(batch.counts[:, bad].any() for batch in batches)
    assert np.mean([np.abs(batch.patches) ** 2 for batch in batches]) == pytest.approx(1, abs=0.1)
    for obj in made.objects.arrays.values():
        assert np.mean(np.abs(obj) ** 2) == pytest.approx(1, rel=1e-4)


def test_a_batch_depends_on_its_number_alone():
    """[SIM-042] in whatever order they are made."""
    walked, jumped = stream(), stream()
    batches = [walked.batch(k, 3) for k in range(8)]
    for k in (7, 2, 5):
        counts, patches, _ = jumped.batch(k, 3)
        np.testing.assert_array_equal(counts, batches[k].counts)
        np.testing.assert_array_equal(patches, batches[k].patches)
    assert not np.array_equal(batches[0].counts, batches[1].counts)
    assert not np.array_equal(batches[0].counts, stream(seed=1).batch(0, 3).counts)


def test_the_pool_is_renewed():
    """[SIM-043] one object at a time; those that went last are kept for slower threads."""
    made = stream()
    pools = []
    for step in range(24):
        made.batch(step, 1)
        pools.append(set(made.objects.arrays))
    assert pools[0] == pools[1] == {0}
    assert set(made.objects.numbers(23)) == {8, 9, 10, 11}
    assert pools[-1] == set(range(4, 12))  # eight batches and four objects back
    assert all(len(new - old) <= 1 for old, new in pairwise(pools))
    assert len(made.objects.take(23)) == 4


def test_a_pool_begins_with_a_quarter():
    """[SIM-043] [SIM-049]"""
    pool = RandomPool(lambda number: np.full(1, number, np.complex64), 8, 3)
    assert [len(pool.numbers(step)) for step in (0, 2, 3, 18, 99)] == [2, 2, 3, 8, 8]
    assert [int(array[0].real) for array in pool.take(18)] == list(pool.numbers(18)) == list(range(8))


def test_probes_are_drawn_for_every_pattern():
    """[SIM-049] Each makes the counts of its own pattern, at the same energy."""

    def draw(rng):
        return simulate_probe("disc", N, photons=1.0) * np.exp(1j * rng.uniform(0, 3) * np.linspace(-1, 1, N) ** 2)

    made = stream(mean_counts=1e9, patch_size=N, draw_probe=draw)
    counts, patches, probes = made.batch(0, 6)
    assert probes.shape == (6, 1, N, N)
    np.testing.assert_allclose((np.abs(probes) ** 2).sum(axis=(1, 2, 3)), 1e9, rtol=1e-4)
    assert len({probe.tobytes() for probe in probes}) == 6
    drawn, _ = made.draw(0, 2 * 256)
    assert np.bincount(drawn.probes).tolist() == [2] * 256
    mean = intensity(patches[:, None] * probes)
    assert np.abs(counts - mean).sum() < 2e-3 * mean.sum()
    again = stream(mean_counts=1e9, patch_size=N, draw_probe=draw).batch(3, 6)
    np.testing.assert_array_equal(again.probes, made.batch(3, 6).probes)
    assert made.probes.size == 1024
    assert stream(np.ones((40, 256, 256)), object_size_px=256, draw_probe=draw).probes.size == 16  # 21 MB each


def test_windows_are_cut_turned_and_flipped():
    """[SIM-043] all eight ways of laying a square occur, nothing is interpolated."""
    made = stream(patch_size=N, pool_size=1, batches_an_object=1000, object_size_px=N)
    patches = made.batch(0, 64).patches
    (obj,) = made.objects.arrays.values()
    ways = [w[::u, ::v] for w in (obj, obj.T) for u in (1, -1) for v in (1, -1)]
    found = {next(i for i, way in enumerate(ways) if np.array_equal(patch, way)) for patch in patches}
    assert found == set(range(8))


def test_dose_changes_the_noise_alone():
    """[SIM-044]"""
    pure = stream(mean_counts=1e9).batch(0, 16).counts * 1e-4
    noisy, dark = stream().batch(0, 16).counts, stream(dose_range=(0.01, 0.01)).batch(0, 16).counts
    assert dark.sum() == pytest.approx(noisy.sum(), rel=0.02)
    noise = [np.sum((c - pure) ** 2) for c in (noisy, dark)]
    assert noise[1] / noise[0] == pytest.approx(100, rel=0.5)
    counts = stream(dose_range=(0.1, 10.0)).batch(0, 300).counts
    steps = np.array([c[c > 0].min() for c in counts])  # one photon of each
    assert np.median(-np.log10(steps)) == pytest.approx(2 * np.sqrt(0.5) - 1, abs=0.1)
    assert steps.min() < 0.2
    assert steps.max() > 5


def test_contrast_and_kinds_are_the_callers():
    """[SIM-043]"""
    made = stream(kinds=["star"], amplitude_contrast=(0.5, 0.5), phase_span_rad=(1.0, 1.0), pool_size=1)
    made.batch(0, 1)
    (obj,) = made.objects.arrays.values()
    assert np.abs(obj).min() / np.abs(obj).max() == pytest.approx(0.5, rel=1e-3)
    assert np.ptp(np.angle(obj)) == pytest.approx(1, rel=1e-3)


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
        stream().batch(-1, 1)


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
