"""Parts of a batch in threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from ptychopinn_torch import parallel
from ptychopinn_torch.parallel import ParallelPredictor


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (15, 1), (16, 2), (64, 4), (500, 8)])
def test_every_pattern_comes_once_in_order(four_threads, count: int, parts: int) -> None:
    seen = []

    def compute(counts):
        seen.append((len(counts), torch.get_num_threads(), threading.get_ident()))
        return counts[:, 0, :1, :1].astype(np.complex64)

    patterns = np.arange(count, dtype=np.float32)[:, None, None, None] + np.zeros((1, 1, 8, 8), np.float32)
    found = ParallelPredictor(torch.device("cpu"))(compute, patterns)
    np.testing.assert_array_equal(found[:, 0, 0].real, np.arange(count))
    assert len(seen) == parts
    if parts > 1:
        assert {cores for _, cores, _ in seen} == {1}


def test_threads_of_others_are_left_alone(four_threads) -> None:
    ParallelPredictor(torch.device("cpu"))(lambda c: c.astype(np.complex64), np.zeros((64, 1, 8, 8), np.float32))
    other: list[int] = []
    thread = threading.Thread(target=lambda: other.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert torch.get_num_threads() == 4
    assert other == [4]


def test_parts_fit_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with one core; a GPU gets the batch whole."""
    monkeypatch.setattr(parallel, "_MAX_PIXELS", 3 * 64)
    sizes: list[int] = []

    def compute(counts):
        sizes.append(len(counts))
        return counts.astype(np.complex64)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ParallelPredictor(torch.device("cpu"))(compute, np.zeros((10, 1, 8, 8), np.float32))
        assert max(sizes) <= 3
        assert sum(sizes) == 10
        sizes.clear()
        ParallelPredictor(torch.device("cuda"))(compute, np.zeros((10, 1, 8, 8), np.float32))
        assert sizes == [10]
    finally:
        torch.set_num_threads(before)
