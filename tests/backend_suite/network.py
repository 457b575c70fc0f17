"""The network alone: shapes, amplitudes, independence of the batch. Requirements: specs/10-training.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest

from backend_suite.ops import Ops
from ptychopinn.config import ModelConfig
from ptychopinn.config.execution import Precision
from ptychopinn.config.model import SUPPORTED_N, AmplitudeActivation
from ptychopinn.simulate import simulate_probe
from ptychopinn.training import DetectorSampling, sampling_schedule
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray

Predict = Callable[..., ComplexArray]


def probe(size: int, modes: int = 1) -> ComplexArray:
    """Energy 1 in units of the mean counts, as the network gets it."""
    return simulate_probe("disc", size, photons=1.0, modes=modes) * np.float32(size)


def patterns(size: int, count: int = 3, seed: int = 1) -> FloatArray:
    """Amplitudes, (count, size, size) float32."""
    return np.random.default_rng(seed).gamma(0.5, 1.0, (count, size, size)).astype(np.float32)


@pytest.fixture
def network(ops: Ops) -> Callable[..., Any]:
    """With random heads, so that what comes out depends on everything that goes in."""

    def make(seed: int = 0, **config: Any) -> Any:
        settings = ModelConfig(**{"N": 32, "n_filters_scale": 0.1, "iterations": 2, **config})
        fresh = ops.build(settings, probe(settings.N), np.zeros(2))
        rng = np.random.default_rng(seed)
        arrays = {
            name: 0.2 * rng.standard_normal(array.shape).astype(np.float32)
            if name.startswith("network/") and (array.size < 2000 or not array.any())
            else array
            for name, array in ops.model.model_arrays(fresh).items()
        }
        return ops.filled(settings, arrays, Precision.FLOAT32).network

    return make


@pytest.fixture
def predict(ops: Ops) -> Predict:
    """Predict with a network: (n, N, N) amplitudes to (n, N/2, N/2) complex64 patches."""

    def run(
        made: Any, amplitudes: FloatArray, *, light: AnyArray | None = None, good: AnyArray | None = None
    ) -> AnyArray:
        size = amplitudes.shape[-1]
        light = probe(size) if light is None else light
        good = np.ones((size, size), np.float32) if good is None else good
        return ops.run(lambda given, *by: made(given, made.prepare_probe(*by)), amplitudes[:, None], light, good)[:, 0]

    return run


@pytest.mark.parametrize("size", SUPPORTED_N)
@pytest.mark.parametrize("modes", [1, 3])
def test_every_size_and_number_of_modes(network: Callable[..., Any], predict: Predict, size: int, modes: int) -> None:
    """[NET-001] [REC-005] (b, N/2, N/2) complex64."""
    made = network(N=size, iterations=1, n_filters_scale=0.05)
    found = predict(made, patterns(size, 2), light=probe(size, modes))
    assert found.shape == (2, size // 2, size // 2)
    assert found.dtype == np.complex64
    assert np.isfinite(found).all()


@pytest.mark.parametrize("activation", list(AmplitudeActivation))
def test_activations_give_one_at_zero_and_stay_positive(ops: Ops, activation: AmplitudeActivation) -> None:
    """[NET-003]"""
    found = ops.run(lambda x: ops.network.amplitude(activation, x), np.linspace(-8, 8, 101, dtype=np.float32))
    assert found[50] == pytest.approx(1.0, abs=1e-6)
    assert (found > 0).all()
    assert (np.diff(found) > 0).all()
    assert bool(found.max() <= 2.5) is (activation is AmplitudeActivation.BOUNDED)


def test_every_activation_acts(network: Callable[..., Any], predict: Predict) -> None:
    found = [np.abs(predict(network(amp_activation=a), patterns(32))) for a in AmplitudeActivation]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not np.allclose(found[a], found[b], atol=1e-3)


def test_a_fresh_network_predicts_nearly_one(ops: Ops, predict: Predict) -> None:
    """Training starts from the empty object that the first comparison assumes."""
    fresh = ops.build(ModelConfig(N=32, n_filters_scale=0.1), probe(32), np.zeros(2))
    assert np.abs(predict(fresh.network, patterns(32)) - 1).max() < 0.1


def test_a_pattern_does_not_see_its_batch(network: Callable[..., Any], predict: Predict) -> None:
    """[NET-001] [REC-006]"""
    made, given = network(), patterns(32, 5)
    together = predict(made, given)
    alone = np.concatenate([predict(made, one[None]) for one in given])
    np.testing.assert_allclose(together, alone, atol=2e-5)
    np.testing.assert_allclose(together[::-1], predict(made, given[::-1].copy()), atol=2e-5)
    assert not np.allclose(together[0], together[1], atol=1e-3)


def test_patterns_of_zeros_are_no_trouble(ops: Ops, network: Callable[..., Any], predict: Predict) -> None:
    """[NET-002]"""
    made, dark, good = network(), np.zeros((2, 32, 32), np.float32), np.ones((32, 32), np.float32)
    assert np.isfinite(predict(made, dark)).all()
    given = ops.tensor(dark[:, None]), ops.tensor(good)
    (gradient,) = ops.gradients(lambda light: abs(made(given[0], made.prepare_probe(light, given[1]))), probe(32))
    assert np.isfinite(gradient).all()


def test_bad_pixels_are_known_to_be_bad(network: Callable[..., Any], predict: Predict) -> None:
    """[NET-002] A pixel that measured nothing is no dark pixel."""
    good = np.ones((32, 32), np.float32)
    good[3, 4:20] = 0
    given = patterns(32) * good
    assert not np.allclose(predict(network(), given), predict(network(), given, good=good), atol=1e-4)


def test_the_probe_acts(network: Callable[..., Any], predict: Predict) -> None:
    made, given = network(), patterns(32)
    other = probe(32)[:, :, ::-1] * np.exp(1j * np.linspace(0, 2, 32))
    assert not np.allclose(predict(made, given), predict(made, given, light=other.astype(np.complex64)), atol=1e-3)


def test_width_and_iterations_are_as_configured(ops: Ops) -> None:
    def arrays(**config: Any) -> dict[str, AnyArray]:
        return ops.model.model_arrays(ops.build(ModelConfig(**{"N": 32, **config}), probe(32), np.zeros(2)))

    def size(**config: Any) -> int:
        return sum(array.size for array in arrays(**config).values())

    assert size(n_filters_scale=0.1) < size(n_filters_scale=0.5) < size(n_filters_scale=1)
    assert size(iterations=1, n_filters_scale=0.1) < size(iterations=2, n_filters_scale=0.1)
    assert "network/body/4/conv/weight" in arrays(n_filters_scale=0.1, iterations=5)


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("padded", [True, False])
def test_the_far_field_of_each_iteration_is_that_of_the_physics(ops: Ops, modes: int, padded: bool) -> None:
    """[NET-004] Every second pixel of it where the patch is half as wide as the pattern."""
    config = ModelConfig(N=64, n_filters_scale=0.1, pad_object=padded)
    light, n = probe(64, modes), config.patch_size
    patch = smooth(n)
    window = np.ones((64, 64), np.complex64)
    margin = (64 - n) // 2
    window[margin : margin + n, margin : margin + n] = patch
    field = np.fft.fft2(light * window, norm="ortho")
    finest = sampling_schedule(config)[-1]
    for offset in product(range(finest.stride), repeat=2):
        sampling = replace(finest, offset=offset)
        rows, columns = (slice(first, None, sampling.stride) for first in sampling.offset)
        found = ops.run(partial(far_field, ops, sampling, patch), light, np.ones((64, 64), np.float32))
        np.testing.assert_allclose(np.abs(found), np.abs(field[:, rows, columns]), atol=2e-5)


def smooth(n: int) -> ComplexArray:
    """A patch that is no constant, and 1 at its border."""
    y, x = np.mgrid[:n, :n] / (n - 1) * np.pi
    return (1 + 0.5j * np.sin(y) * np.sin(x) * np.exp(2j * y + 1j * x)).astype(np.complex64)


def far_field(ops: Ops, sampling: DetectorSampling, patch: ComplexArray, light: Any, good: Any) -> Any:
    """(modes, n, n), as an iteration computes it of a patch."""
    sampled_probes = ops.network.SampledProbe.of(sampling, light, good)
    return sampled_probes.far_field(ops.network.to_tiles(ops.tensor(patch[None] - 1)))[0]


@pytest.mark.parametrize("modes", [1, 2])
def test_every_pattern_may_have_a_probe_of_its_own(network: Callable[..., Any], predict: Predict, modes: int) -> None:
    """[NET-006] Each patch is that of its own probe alone."""
    made, given = network(N=64, iterations=6), patterns(64, 3)
    probes = np.stack(
        [np.roll(probe(64, modes), 4 * shift, axis=-1) * np.float32(1 + shift / 10) for shift in range(3)]
    )
    together = predict(made, given, light=probes)
    for number in range(3):
        alone = predict(made, given[number : number + 1], light=probes[number])
        np.testing.assert_allclose(together[number], alone[0], atol=1e-4)
    other = predict(made, given[:1], light=probes[1])[0]
    assert np.abs(together[0] - other).max() > 1e-2
