"""The network (`backend_suite.network`), and its blocks alone. Requirements: specs/10-training.md."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from backend_suite.network import *  # noqa: F403

from ptychopinn.config import ModelConfig
from ptychopinn.config.execution import Precision
from ptychopinn.simulate import simulate_probe
from ptychopinn_torch.model import Illumination, Model
from ptychopinn_torch.network import Embedding, MixingBlock, ResidualBlock


@pytest.mark.parametrize("block", [ResidualBlock(8), MixingBlock(8)])
def test_blocks_start_as_the_identity_and_then_act(block: torch.nn.Module) -> None:
    h = torch.randn(2, 256, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(h), h)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.1)
    found = block(h)
    assert found.shape == h.shape
    assert not torch.allclose(found, h, atol=1e-2)


def test_an_embedding_is_a_product_with_both_inputs() -> None:
    """In float32 under reduced precision too."""
    embedding, generator = Embedding(5, 8), torch.Generator().manual_seed(0)
    h, first, second = (torch.randn(2, 256, k, generator=generator) for k in (8, 2, 3))
    expected = h + torch.cat([first, second], dim=-1) @ embedding.weight.T
    with torch.autocast("cpu", torch.bfloat16):
        found = embedding(h, first, second)
    torch.testing.assert_close(found, expected)


def test_mixing_reaches_the_whole_grid() -> None:
    block = MixingBlock(8)
    with torch.no_grad():
        block.leave.weight.normal_()
    h = torch.zeros(1, 256, 8)
    h[0, 0] = 1
    moved = (block(h) - block(torch.zeros_like(h))).abs().amax(dim=(0, 2))
    assert (moved > 1e-6).all()


@pytest.mark.parametrize("architecture", ["fast", "cnn"])
@pytest.mark.parametrize("modes", [1, 2])
def test_light_that_is_made_once_is_the_same_light(architecture: str, modes: int) -> None:
    """[NET-001]"""
    config = ModelConfig(N=64, architecture=architecture)
    generator = torch.Generator().manual_seed(0)
    light = Illumination(simulate_probe("disc", 64, photons=1.0, modes=modes), np.zeros(2))
    model = Model(config, light, Precision.FLOAT32)
    counts = torch.rand(3, config.patterns_per_group, 64, 64, generator=generator)
    good = (torch.rand(64, 64, generator=generator) > 0.1).float()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.normal_(std=0.1, generator=generator)
        made, given = (model(counts, 30.0, light(), good, lit) for lit in (None, model.lit(light(), good)))
    assert torch.equal(made, given)
    assert (made - 1).abs().max() > 0.1
