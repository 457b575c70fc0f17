"""The network (`backend_suite.network`), and its blocks alone. Requirements: specs/10-training.md."""

from __future__ import annotations

import pytest
import torch
from backend_suite.network import *  # noqa: F403

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
