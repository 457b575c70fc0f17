"""Float32 is float32, and what was set before is put back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ptychopinn.config import ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.execution import Accelerator
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.simulate import simulate_scan
from ptychopinn_torch.numerics import any_order, exact_float32
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.reconstructor import TorchReconstructor


def settings() -> tuple[bool, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )


@pytest.mark.parametrize("wanted", [True, False])
def test_for_a_while(wanted: bool) -> None:
    """[REC-004]"""
    before = settings()
    with pytest.raises(KeyError), exact_float32(deterministic=wanted):
        assert settings()[0] is wanted
        assert settings()[2] is False
        assert settings()[4] is False
        raise KeyError
    assert settings() == before


def test_what_was_set_before_is_put_back() -> None:
    torch.use_deterministic_algorithms(True, warn_only=False)
    try:
        before = settings()
        with exact_float32(deterministic=False):
            assert not torch.are_deterministic_algorithms_enabled()
        assert settings() == before
    finally:
        torch.use_deterministic_algorithms(False)


def test_two_that_overlap() -> None:
    """[RUN-061] The first ends first: the second goes on in true float32, and what was set comes back after both."""
    before = settings()
    first = exact_float32(deterministic=True)
    first.__enter__()
    with ThreadPoolExecutor(1) as other:  # another thread
        second = exact_float32(deterministic=False)
        other.submit(second.__enter__).result()
        assert settings()[:3] == (True, True, False)
        first.__exit__(None, None, None)
        assert (settings()[0], settings()[2], settings()[4]) == (False, False, False)
        other.submit(second.__exit__, None, None, None).result()
    assert settings() == before


def test_trainings_in_two_threads_leave_the_process_as_it_was() -> None:
    """[RUN-061] The first one begins first and ends while the second one computes, which is still exact."""
    before, threads = settings(), torch.get_num_threads()
    scan = simulate_scan(SimulationConfig(N=32, rows=4, cols=4))
    begun, both, ended = (threading.Event() for _ in range(3))
    seen = []

    def train(*, first: bool) -> None:
        def note(progress: Progress) -> None:
            if progress.stage != "train" or progress.done != 1:
                return
            (begun if first else both).set()
            assert (both if first else ended).wait(60)
            if not first:
                seen.append((*settings(), torch.get_num_threads()))

        options = TorchOptions(accelerator=Accelerator.CPU, deterministic=first, threads=1 if first else 2)
        config = TrainConfig(nepochs=3, probe_refinement=0)
        model = ModelConfig(N=32, n_filters_scale=0.125)
        TorchReconstructor(model, options).train(scan, config, monitor=Monitor(note))

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(train, first=True)
        assert begun.wait(60)
        second = pool.submit(train, first=False)
        first.result()
        ended.set()
        second.result()
        assert pool.submit(torch.get_num_threads).result() == threads
    assert [(now[0], now[2], now[5]) for now in seen] == [(False, False, 2)]
    assert (settings(), torch.get_num_threads()) == (before, threads)


def test_any_order_for_a_while() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        before = settings()
        with pytest.raises(KeyError), any_order():
            assert not torch.are_deterministic_algorithms_enabled()
            raise KeyError
        assert settings() == before
    finally:
        torch.use_deterministic_algorithms(False)
