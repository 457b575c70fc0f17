"""Objects that follow positions which move together. Requirements: specs/13-refinement.md."""

from __future__ import annotations

import numpy as np
import pytest
from array_libraries import StrictLibrary

from ptychopinn.arrays import NUMPY, ArrayLibrary
from ptychopinn.geometry import Frame
from ptychopinn.simulate import simulate_probe
from ptychopinn.solvers.displacement import Displacement
from ptychopinn.typing import ComplexArray, FloatArray

N = 32
LIGHT = (np.abs(simulate_probe("disc", N, photons=1.0)) ** 2).sum(axis=0)


def make_positions(seed: int = 0) -> tuple[FloatArray, tuple[int, int]]:
    """Positions of 14 x 14 patterns in pixels of an object with a margin, and its shape."""
    grid = np.stack(np.meshgrid(np.arange(14.0), np.arange(14.0)), axis=-1).reshape(-1, 2) * 4
    positions = grid + np.random.default_rng(seed).uniform(-1, 1, grid.shape)
    frame = Frame.around(positions, N, 8)
    return frame.local(positions), frame.shape


def waves(y: FloatArray, x: FloatArray) -> ComplexArray:
    """A band-limited object at any place."""
    return (np.exp(1j * np.sin(0.5 * y + 0.3 * x)) * (1 + 0.3 * np.cos(0.7 * x - 0.2 * y))).astype(np.complex64)


@pytest.mark.parametrize("library", [NUMPY, StrictLibrary()])
def test_an_object_moves_with_its_positions(library: ArrayLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """[REFINE-032] to the precision of its interpolation, also block by block."""
    monkeypatch.setattr("ptychopinn.solvers.displacement._BLOCK_VALUES", 1000)
    local, shape = make_positions()
    moves = (local - local.mean(axis=0)) @ np.array([[0.02, 0.01], [-0.03, 0.01]]) + [1.3, -0.4]
    displacement = Displacement.of_moves(local, moves, LIGHT, shape)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    at = library.from_host(waves(y, x))
    found = library.to_host(displacement.apply(at, library))
    by = np.stack([y, x], axis=-1) - local.mean(axis=0)
    by = by @ np.array([[0.02, 0.01], [-0.03, 0.01]]) + [1.3, -0.4]
    expected = waves(y - by[..., 0], x - by[..., 1])
    inside = tuple(slice(int(low), int(high)) for low, high in zip(local.min(0) + 6, local.max(0) - 6, strict=True))
    missed = np.linalg.norm((found - expected)[inside]) / np.linalg.norm((waves(y, x) - expected)[inside])
    assert displacement.matters
    assert missed < 0.05
    assert not Displacement.of_moves(local, 0.01 * moves / np.abs(moves).max(), LIGHT, shape).matters
