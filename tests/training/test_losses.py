"""The formulas of the loss on plain arrays, against SciPy and sums written out. Requirements: specs/10-training.md."""

from __future__ import annotations

import numpy as np
from ptychopinn_numpy import operations
from scipy.special import kl_div

from ptychopinn.forward import COUNT_FLOOR
from ptychopinn.stitching import patch_weights as reference_patch_weights
from ptychopinn.training import losses
from ptychopinn.typing import ComplexArray, FloatArray

RNG = np.random.default_rng(0)
EXPECTED, COUNTS = RNG.gamma(2.0, 3.0, (2, 3, 6, 6)), RNG.poisson(6.0, (2, 3, 6, 6)).astype(float)
GOOD = (RNG.random((6, 6)) > 0.2).astype(float)


def complexes(*shape: int) -> ComplexArray:
    return RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)


def test_the_deviance_is_scipys() -> None:
    """[LOSS-002]"""
    found = losses.poisson_deviance(operations, EXPECTED, COUNTS, GOOD, 216.0)
    expected = (kl_div(COUNTS + COUNT_FLOOR, EXPECTED + COUNT_FLOOR) * GOOD).sum(axis=(2, 3)) / 216
    np.testing.assert_allclose(found, expected)


def test_the_error_of_amplitudes_is_a_mean_over_pixels() -> None:
    """[LOSS-002]"""
    found = losses.amplitude_error(operations, EXPECTED, COUNTS, GOOD, 216.0)
    roots = [np.sqrt(values + COUNT_FLOOR) for values in (EXPECTED, COUNTS)]
    expected = (np.abs(roots[0] - roots[1]) * GOOD).mean(axis=(2, 3)) / np.sqrt(216 / 36)
    np.testing.assert_allclose(found, expected)


def test_the_total_variation_is_a_mean_of_differences() -> None:
    """[LOSS-002]"""
    canvas = complexes(3, 7, 7)
    found = losses.total_variation(operations, canvas)
    expected = [np.abs(np.diff(canvas, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    np.testing.assert_allclose(found, expected[0] + expected[1])


def test_the_error_of_patches_is_the_smallest_over_their_phases_where_they_nearly_agree() -> None:
    """[LOSS-002] [LOSS-004] The weighted mean, at the phase of the weighted product."""
    truth, weights = complexes(2, 5, 5), RNG.random((5, 5))

    def error(patches: ComplexArray, reference: ComplexArray) -> FloatArray:
        return np.average(np.abs(patches - reference).reshape(2, -1), axis=1, weights=weights.ravel())

    patches = 1.1 * truth * np.exp(0.7j)
    found = losses.patch_error(operations, patches, truth, weights)
    np.testing.assert_allclose(found, error(patches, truth * np.exp(0.7j)), rtol=1e-6)
    assert (found < error(patches, truth * np.exp(0.75j))).all()


def test_weights_are_those_of_the_stitcher() -> None:
    probes = complexes(4, 2, 12, 12)
    found = losses.patch_weights(operations, probes, 6)
    np.testing.assert_allclose(found, [reference_patch_weights(probe, 6) for probe in probes], rtol=1e-5)


def test_products_are_those_of_neighbours() -> None:
    patches, weights = complexes(2, 5, 5), RNG.random((5, 5))
    found = losses.neighbour_products(operations, patches, weights)
    sums = np.zeros(2, complex)
    for patch in patches:
        for y, x in np.ndindex(5, 5):
            sums[0] += weights[y, x] * patch[y, x] * np.conj(patch[y - 1, x]) if y else 0
            sums[1] += weights[y, x] * patch[y, x] * np.conj(patch[y, x - 1]) if x else 0
    np.testing.assert_allclose([p[0] + 1j * p[1] for p in found], sums)
