"""Flatness and forward residual."""

from __future__ import annotations

import numpy as np
import pytest

from ptychopinn.config.infer import Likelihood
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import DataError
from ptychopinn.forward import expected_counts
from ptychopinn.geometry import Canvas, Frame
from ptychopinn.metrics import FLATNESS_LIMIT, ScanBox, flatness, forward_residual, scan_box
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.scan_model import ScanModel


@pytest.fixture
def scene(make_object):
    """Object, probe and noise-free scan whose frame starts at (-20, 7)."""
    rng = np.random.default_rng(0)
    origin = (-20, 7)
    obj = make_object((60, 70))
    y, x = np.mgrid[:16, :16] - 7.5
    probe = (30 * np.exp(-(y**2 + x**2) / 20) * np.exp(0.02j * y * x)).astype(complex)
    modes = np.stack([probe, 0.3 * probe * y])
    local = rng.uniform((10, 10), (50, 60), size=(9, 2))
    patterns = expected_counts(obj, modes, local)
    data = ScanDataset(patterns, Measurement.COUNTS, local + origin, modes)
    return obj, origin, modes, data


def test_flatness():
    """[MET-011] The deviation of the complex object inside the box, blind to a factor of modulus 1."""
    box = ScanBox(2, 8, 0, 10)
    obj = np.ones((10, 10), complex)
    obj[:2] = 100  # outside the box
    assert flatness(obj, box) == 0
    obj[2:8, ::2] = 1 + 0.2j
    assert flatness(obj, box) == pytest.approx(0.1)
    assert flatness(obj * 1j, box) == pytest.approx(0.1)
    assert FLATNESS_LIMIT == 0.02
    with pytest.raises(DataError, match="no pixel"):
        flatness(obj, ScanBox(0, 0, 0, 0))


def test_residual_of_the_truth_is_zero(scene):
    """[MET-012] Zero for the true object in its own frame; large for a flat one or a frame that is off."""
    obj, origin, probe, data = scene
    assert forward_residual(obj, origin, probe, data) < 1e-3
    assert forward_residual(np.ones_like(obj), origin, probe, data) > 0.1
    assert forward_residual(obj, (origin[0] + 3, origin[1]), probe, data) > 0.05
    assert forward_residual(obj * 1.1, origin, probe, data) == pytest.approx(0.1, abs=1e-3)


def test_bad_pixels_do_not_count(scene):
    """[MET-012] Bad pixels are left out on both sides."""
    obj, origin, probe, data = scene
    spoiled = np.array(data.patterns)
    bad = np.zeros((16, 16), bool)
    bad[8, 8] = bad[3, 12] = True
    spoiled[:, bad] = 1e6
    masked = ScanDataset(spoiled, data.measurement, data.positions, data.probe, bad_pixels=bad)
    assert forward_residual(obj, origin, probe, masked) < 1e-3


def test_few_counts_have_a_residual_of_their_own(scene):
    """[MET-013] Least for the true object, that of amplitudes for one that is too dark; equal where counts are many."""
    obj, origin, probe, data = scene
    rng = np.random.default_rng(3)

    def residuals(photons: float, factor: float) -> tuple[float, float]:
        share = photons / np.sum(data.patterns, axis=(1, 2)).mean()
        counts = rng.poisson(np.tile(data.patterns, (40, 1, 1)) * share).astype(np.float32)
        lit = ScanDataset(counts, Measurement.COUNTS, np.tile(data.positions, (40, 1)), probe * np.sqrt(share))
        canvas = Canvas(obj * factor, Frame(obj.shape, origin))
        amplitude, poisson = (
            ForwardResidual(ScanModel(lit.probe, lit.positions), Patterns(lit), likelihood=likelihood)(canvas)
            for likelihood in Likelihood
        )
        return amplitude, poisson

    dim = {factor: residuals(10, factor) for factor in (0.85, 1.0, 1.15)}
    assert dim[1.0][1] < min(dim[0.85][1], dim[1.15][1])
    assert dim[0.85][0] < dim[1.0][0] < dim[1.15][0]
    amplitude, poisson = residuals(1e7, 1.05)
    assert poisson == pytest.approx(amplitude, rel=0.05)


def test_only_the_patterns_asked_for(scene):
    """[MET-012] Indices choose, and a cap takes evenly spread ones."""
    obj, origin, probe, data = scene
    spoiled = np.array(data.patterns)
    spoiled[[0, 4, 8]] *= 4
    other = ScanDataset(spoiled, data.measurement, data.positions, data.probe)
    assert forward_residual(obj, origin, probe, other, indices=np.array([1, 2, 5])) < 1e-3
    assert forward_residual(obj, origin, probe, other, max_patterns=3) == pytest.approx(0.5, abs=1e-3)  # 0, 4, 8
    amplitude = ScanDataset(np.sqrt(spoiled), Measurement.AMPLITUDE, data.positions, data.probe)
    assert forward_residual(obj, origin, probe, amplitude) == pytest.approx(
        forward_residual(obj, origin, probe, other), abs=1e-4
    )


def test_nothing_to_compare_with_is_refused(scene):
    """[MET-012] No pattern or no photon is an error."""
    obj, origin, probe, data = scene
    with pytest.raises(DataError, match="0 patterns without a photon"):
        forward_residual(obj, origin, probe, data, indices=np.zeros(0, np.int64))
    dark = ScanDataset(np.zeros_like(data.patterns), data.measurement, data.positions, data.probe)
    with pytest.raises(DataError, match="without a photon"):
        forward_residual(obj, origin, probe, dark)


def test_residual_of_the_measured_scan(shared_data):
    """[MET-012] The trusted reference of the measured scan leaves no more than the published 0.111, in its frame."""
    with (
        np.load(shared_data / "siemens-star.npz") as scan,
        np.load(shared_data / "siemens-star-reference.npz") as known,
    ):
        patterns, bad = scan["diff3d"][::8], scan["bad_pixels"]
        positions = np.stack([scan["ycoords"], scan["xcoords"]], axis=1)
        obj, probe, guess = known["object"], known["probe"], scan["objectGuess"]

    def residual(offset_px):
        data = ScanDataset(patterns, Measurement.COUNTS, positions[::8] + offset_px, probe, bad_pixels=bad)
        return forward_residual(obj, (0, 0), probe, data)

    assert 0.09 < residual((0, 0)) < 0.111
    for offset in ((0, 0.5), (0, -0.5), (0.5, 0), (-0.5, 0)):
        assert residual(offset) > residual((0, 0)) + 0.001
    box = scan_box(positions, obj.shape)
    assert flatness(obj, box) > 10 * FLATNESS_LIMIT
    assert flatness(guess, box) == 0
