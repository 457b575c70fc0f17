"""What the fast network compares in each iteration. Requirements: specs/10-training.md."""

from __future__ import annotations

import numpy as np
import pytest

from ptychopinn.config import ModelConfig
from ptychopinn.config.model import SUPPORTED_N
from ptychopinn.training import features_width, sampling_schedule
from ptychopinn.training.constants import GRID


@pytest.mark.parametrize("size", SUPPORTED_N)
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("steps", range(1, 9))
def test_every_iteration_has_one_and_the_last_is_as_fine_as_the_patch(size: int, padded: bool, steps: int) -> None:
    """[NET-001] A pixel of a tile is one at least, and transforms are as large as the patch."""
    config = ModelConfig(N=size, iterations=steps, pad_object=padded)
    found = sampling_schedule(config)
    assert len(found) == steps
    assert (found[-1].N, found[-1].n) == (size, config.patch_size)
    assert all(sampling.n == sampling.tile * GRID and sampling.n * sampling.stride == sampling.N for sampling in found)
    assert [sampling.n for sampling in found] == sorted(sampling.n for sampling in found)
    assert features_width(config) % GRID == 0


@pytest.mark.parametrize(
    ("size", "padded", "expected"),
    [
        (64, True, [32, 32, 32, 32, 32, 64, 64]),
        (128, True, [32, 32, 32, 64, 64, 128, 128]),
        (256, True, [32, 64, 64, 128, 128, 256, 256]),
        (64, False, [16, 16, 16, 32, 32, 64, 64]),
    ],
)
def test_each_resolution_has_two_and_the_coarsest_the_rest(size: int, padded: bool, expected: list[int]) -> None:
    """[NET-005] A patch is never smaller than the grid."""
    assert [
        sampling.N for sampling in sampling_schedule(ModelConfig(N=size, iterations=7, pad_object=padded))
    ] == expected


@pytest.mark.parametrize(
    ("size", "fine", "expected"),
    [
        (64, 4, [32, 32, 32, 64, 64, 64, 64]),
        (64, 7, [64] * 7),
        (64, 16, [64] * 7),
        (256, 3, [64, 128, 128, 128] + [256] * 3),
    ],
)
def test_each_resolution_has_as_many_as_are_asked_for(size: int, fine: int, expected: list[int]) -> None:
    """[NET-005]"""
    found = sampling_schedule(ModelConfig(N=size, iterations=7, fine_iterations=fine))
    assert [sampling.N for sampling in found] == expected


def test_a_patch_as_small_as_the_grid_is_never_coarser() -> None:
    assert {sampling.n for sampling in sampling_schedule(ModelConfig(N=32))} == {GRID}


def test_iterations_that_follow_each_other_see_the_whole_detector() -> None:
    """[NET-004] Each pixel once in four."""
    found = sampling_schedule(ModelConfig(N=64, iterations=10))
    for four in (found[:4], found[4:8]):
        seen = np.zeros((four[0].N, four[0].N), int)
        for sampling in four:
            seen[sampling.pixels] += 1
        assert (seen == 1).all()


def test_without_oversampling_every_pixel_is_seen_each_time() -> None:
    assert {(sampling.stride, sampling.offset) for sampling in sampling_schedule(ModelConfig(pad_object=False))} == {
        (1, (0, 0))
    }
