"""The network alone: shapes, amplitudes, independence of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ptychopinn.config import ModelConfig
from ptychopinn.config.model import SUPPORTED_N, AmplitudeActivation
from ptychopinn.simulate import simulate_probe
from ptychopinn_torch.network import FastNetwork, MixingBlock, ResidualBlock, amplitude


def network(seed: int = 0, **config: Any) -> FastNetwork:
    """With random heads, so that what comes out depends on everything that goes in."""
    torch.manual_seed(seed)
    made = FastNetwork(ModelConfig(**{"N": 32, "n_filters_scale": 0.1, "iterations": 2, **config}))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.numel() < 2000 or parameter.abs().max() == 0:
                parameter.normal_(std=0.2)
    return made.eval()


def probe(size: int, modes: int = 1) -> Tensor:
    """Energy 1 in units of the mean counts, as the network gets it."""
    return torch.from_numpy(simulate_probe("disc", size, photons=1.0, modes=modes)) * size


def patterns(size: int, count: int = 3, seed: int = 1) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.gamma(0.5, 1.0, (count, size, size)).astype(np.float32))


def predict(made: FastNetwork, amplitudes: Tensor, *, modes: int = 1, good: Tensor | None = None) -> Tensor:
    size = amplitudes.shape[-1]
    with torch.no_grad():
        found: Tensor = made(amplitudes, probe(size, modes), torch.ones(size, size) if good is None else good)
    return found


@pytest.mark.parametrize("size", SUPPORTED_N)
@pytest.mark.parametrize("modes", [1, 3])
def test_every_size_and_number_of_modes(size: int, modes: int) -> None:
    """[NET-001] [REC-005] (b, N/2, N/2) complex64."""
    found = predict(network(N=size, iterations=1, n_filters_scale=0.05), patterns(size, 2), modes=modes)
    assert found.shape == (2, size // 2, size // 2)
    assert found.dtype == torch.complex64
    assert torch.isfinite(torch.view_as_real(found)).all()


@pytest.mark.parametrize("activation", list(AmplitudeActivation))
def test_activations_give_one_at_zero_and_stay_positive(activation: AmplitudeActivation) -> None:
    """[NET-003]"""
    x = torch.linspace(-8, 8, 101)
    found = amplitude(activation, x)
    assert found[50] == pytest.approx(1.0, abs=1e-6)
    assert (found > 0).all()
    assert (found.diff() > 0).all()
    assert bool(found.max() <= 2.5) is (activation is AmplitudeActivation.BOUNDED)


def test_every_activation_acts() -> None:
    found = [predict(network(amp_activation=a), patterns(32)) for a in AmplitudeActivation]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(found[a].abs(), found[b].abs(), atol=1e-3)


def test_a_fresh_network_predicts_nearly_one() -> None:
    """Training starts from the empty object that the first comparison assumes."""
    torch.manual_seed(0)
    fresh = FastNetwork(ModelConfig(N=32, n_filters_scale=0.1))
    found = predict(fresh, patterns(32))
    assert (found - 1).abs().max() < 0.1


def test_a_pattern_does_not_see_its_batch() -> None:
    """[NET-001] [REC-006]"""
    made, given = network(), patterns(32, 5)
    together = predict(made, given)
    alone = torch.cat([predict(made, one[None]) for one in given])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.flip(0), predict(made, given.flip(0)), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_patterns_of_zeros_are_no_trouble() -> None:
    """[NET-002]"""
    made = network()
    dark = torch.zeros(2, 32, 32)
    assert torch.isfinite(torch.view_as_real(predict(made, dark))).all()
    found = made(dark, probe(32), torch.ones(32, 32))
    found.abs().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


def test_bad_pixels_are_known_to_be_bad() -> None:
    """[NET-002] A pixel that measured nothing is no dark pixel."""
    good = torch.ones(32, 32)
    good[3, 4:20] = 0
    given = patterns(32) * good
    assert not torch.allclose(predict(network(), given), predict(network(), given, good=good), atol=1e-4)


def test_the_probe_acts() -> None:
    made, given = network(), patterns(32)
    other = probe(32).flip(-1) * torch.polar(torch.ones(32, 32), torch.linspace(0, 2, 32).expand(32, 32))
    with torch.no_grad():
        moved = made(given, other, torch.ones(32, 32))
    assert not torch.allclose(predict(made, given), moved, atol=1e-3)


def test_width_and_iterations_are_as_configured() -> None:
    def size(**config: Any) -> int:
        return sum(p.numel() for p in FastNetwork(ModelConfig(**{"N": 32, **config})).parameters())

    assert size(n_filters_scale=0.1) < size(n_filters_scale=0.5) < size(n_filters_scale=1)
    assert size(iterations=1, n_filters_scale=0.1) < size(iterations=2, n_filters_scale=0.1)
    assert len(FastNetwork(ModelConfig(N=32, n_filters_scale=0.1, iterations=5)).body) == 5


@pytest.mark.parametrize("block", [ResidualBlock(8), MixingBlock(8)])
def test_blocks_start_as_the_identity_and_then_act(block: torch.nn.Module) -> None:
    h = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(h), h)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.1)
    found = block(h)
    assert found.shape == h.shape
    assert not torch.allclose(found, h, atol=1e-2)


def test_mixing_reaches_the_whole_grid() -> None:
    block = MixingBlock(8)
    with torch.no_grad():
        block.leave.weight.normal_()
    h = torch.zeros(1, 8, 16, 16)
    h[0, :, 0, 0] = 1
    moved = (block(h) - block(torch.zeros_like(h))).abs().amax(dim=(0, 1))
    assert (moved > 1e-6).all()
