"""Parts of a batch in threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from ptychopinn_torch import parallel
from ptychopinn_torch.parallel import ParallelPredictor, available_threads, limited_threads


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
    found = ParallelPredictor(torch.device("cpu"), 4)(compute, patterns)
    np.testing.assert_array_equal(found[:, 0, 0].real, np.arange(count))
    assert len(seen) == parts
    if parts > 1:
        assert {cores for _, cores, _ in seen} == {1}


def test_threads_of_others_are_left_alone(four_threads) -> None:
    ParallelPredictor(torch.device("cpu"), 4)(lambda c: c.astype(np.complex64), np.zeros((64, 1, 8, 8), np.float32))
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


def test_the_number_of_threads_is_the_option_s(four_threads) -> None:
    """[RUN-010] Also where the caller's thread computes alone; the number of PyTorch is left as it was."""
    seen: list[int] = []

    def compute(counts):
        seen.append(torch.get_num_threads())
        return counts.astype(np.complex64)

    ParallelPredictor(torch.device("cpu"), 1)(compute, np.zeros((64, 1, 8, 8), np.float32))
    with limited_threads(3):
        seen.append(torch.get_num_threads())
    assert seen == [1, 3]
    assert torch.get_num_threads() == 4


def test_limits_of_two_threads_that_overlap_are_put_back(four_threads) -> None:
    """[RUN-061] Whichever ends first: no later thread has the number of one of them."""
    first = limited_threads(1)
    first.__enter__()
    began, ended = threading.Event(), threading.Event()
    seen: list[int] = []

    def other() -> None:
        seen.append(available_threads())
        with limited_threads(2):
            seen.append(available_threads())
            began.set()
            assert ended.wait(10)
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=other)
    thread.start()
    assert began.wait(10)
    assert torch.get_num_threads() == available_threads() == 1
    first.__exit__(None, None, None)
    ended.set()
    thread.join()
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [4, 2, 2, 4, 4]
    assert torch.get_num_threads() == available_threads() == 4


def test_idle_threads_of_openmp_sleep_soon() -> None:
    """[RUN-011] As its library says itself when it is loaded with the backend."""
    if "GNU" not in torch.__config__.parallel_info() and "OpenMP" not in torch.__config__.parallel_info():
        pytest.skip("this build of PyTorch computes without OpenMP")
    code = "from ptychopinn.plugins import discover; discover().get('torch').load_class()"
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    env = {name: value for name, value in os.environ.items() if name not in names} | {"OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line or "KMP_BLOCKTIME" in line]
    if not lines:
        pytest.skip("this library of OpenMP does not say how long its threads wait")
    assert all("'2000'" in line or "'0'" in line for line in lines), lines
