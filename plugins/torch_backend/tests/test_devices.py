"""Which device computes, on machines that are not there. Requirements: specs/10-training.md."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch_fits import new

from ptychopinn.errors import ResourceError
from ptychopinn_torch import devices
from ptychopinn_torch.devices import choose_device, describe, try_card

GIB = 2**30
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with some cards: name, GiB free of 80, and the error of its first computation."""

    def make(
        *cards: tuple[str, float, Exception | None], cuda: str | None = "13.0", hip: str | None = None, driver: str = ""
    ) -> None:
        def init() -> None:
            if driver:
                raise RuntimeError(driver)

        def compute(device: torch.device) -> None:
            error = cards[device.index][2]
            if error is not None:
                raise error

        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", hip)
        functions: dict[str, Any] = {
            "is_available": lambda: bool(cards),
            "device_count": lambda: len(cards),
            "init": init,
            "get_device_properties": lambda k: SimpleNamespace(name=cards[k][0]),
            "mem_get_info": lambda k: (int(cards[k if isinstance(k, int) else k.index][1] * GIB), 80 * GIB),
        }
        for name, function in functions.items():
            monkeypatch.setattr(torch.cuda, name, function)
        monkeypatch.setattr(devices, "_compute", compute)

    return make


def refusal(asked: str) -> ResourceError:
    with pytest.raises(ResourceError) as caught:
        choose_device(asked)
    return caught.value


def test_what_a_card_is_tried_with_can_be_computed() -> None:
    """The number is read back: a device without memory of its own has none."""
    devices._compute(torch.device("cpu"))
    with pytest.raises(RuntimeError, match="meta"):
        devices._compute(torch.device("meta"))


def test_the_first_of_two_cards_or_that_of_the_number(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """[TRAIN-009]"""
    machine(("A", 10, None), ("B", 70, None))
    with caplog.at_level(logging.INFO, logger="ptychopinn"):
        assert choose_device("cuda") == torch.device("cuda", 0)
    assert "There are 2 cards; cuda is the first of them" in caplog.text
    assert choose_device("cuda:0") == torch.device("cuda", 0)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_takes_the_card_with_most_free_memory(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """[TRAIN-009]"""
    machine(("A", 10, None), ("B", 70, None), ("C", 75, RuntimeError("CUDA error: out of memory")))
    with caplog.at_level(logging.INFO, logger="ptychopinn"):
        assert choose_device("auto") == torch.device("cuda", 1)
    assert "cuda:2 is skipped: cuda:2 (C) cannot be used: its memory is full" in caplog.text
    assert "Of 3 cards cuda:1 has most free memory (cuda:0 10.0 GiB, cuda:1 70.0 GiB)" in caplog.text


def test_auto_says_why_it_is_the_cpu(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """[TRAIN-009]"""
    busy = RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nCUDA kernel errors might")
    machine(("A", 10, busy))
    assert choose_device("auto") == torch.device("cpu")
    assert "another program has exclusive use of it" in caplog.text
    assert "computing on the CPU" in caplog.text
    caplog.clear()
    machine(cuda=None)
    with caplog.at_level(logging.INFO, logger="ptychopinn"):
        assert choose_device("auto") == torch.device("cpu")
    assert f"No CUDA: PyTorch {torch.__version__} is a build for the CPU only" in caplog.text


def test_a_build_for_the_cpu_is_refused(machine: Machine) -> None:
    """[TRAIN-009] With its version, and what to install."""
    machine(cuda=None)
    error = refusal("cuda:1")
    assert error.problem.startswith(
        f"cuda:1 was asked for, but PyTorch {torch.__version__} is a build for the CPU only"
    )
    assert "--accelerator cpu, or install a build of torch for CUDA" in error.remedy


@pytest.mark.parametrize(
    ("driver", "told"),
    [
        (
            "The NVIDIA driver on your system is too old (found version 11040).\nPlease update",
            "for CUDA 13.0 and finds no card: The NVIDIA driver on your system is too old (found version 11040)",
        ),
        ("Found no NVIDIA driver on your system. Please check", "finds no card: Found no NVIDIA driver"),
        ("", "finds no card: the driver has none, or CUDA_VISIBLE_DEVICES hides it"),
    ],
)
def test_a_driver_that_does_not_serve_the_build_is_refused(machine: Machine, driver: str, told: str) -> None:
    """[TRAIN-009] With the versions of both."""
    machine(driver=driver)
    error = refusal("cuda")
    assert told in error.problem
    assert "a driver that serves this build" in error.remedy


def test_a_warning_of_the_driver_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """[TRAIN-009] PyTorch warns of a driver that is too old where it is asked whether CUDA is there."""
    machine(driver="too old")

    def is_available() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old", UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    assert "too old" in refusal("cuda").problem


def test_a_number_that_no_card_has_is_refused(machine: Machine) -> None:
    """[TRAIN-009]"""
    machine(("NVIDIA H200", 10, None), ("NVIDIA H100", 70, None))
    error = refusal("cuda:7")
    assert error.problem == "cuda:7 was asked for; there are cuda:0 (NVIDIA H200), cuda:1 (NVIDIA H100)."
    assert "CUDA_VISIBLE_DEVICES" in error.remedy


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "its memory is full"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), "its memory is full"),
        (
            RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
            "another program has exclusive use of it",
        ),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "has no kernels for it"),
        (RuntimeError("CUDA error: unspecified launch failure\nsecond line"), "unspecified launch failure."),
    ],
)
def test_a_card_that_cannot_compute_is_refused(machine: Machine, error: Exception, told: str) -> None:
    """[TRAIN-009]"""
    machine(("A", 0, error))
    found = refusal("cuda")
    assert found.problem.startswith("cuda:0 (A) cannot be used: ")
    assert told in found.problem
    assert "second line" not in found.problem
    assert "--accelerator cpu" in found.remedy
    with pytest.raises(ResourceError):
        try_card(0)


def test_a_slice_of_a_card_is_described_as_such(machine: Machine) -> None:
    """[TRAIN-009] Builds for ROCm say which."""
    machine(("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9.5, None))
    found = describe(torch.device("cuda", 0))
    assert found == "cuda:0 (NVIDIA H100 80GB HBM3 MIG 1g.10gb, 80.0 GiB, 9.5 free)"
    machine(("AMD Instinct MI250X", 60, None), cuda=None, hip="6.2")
    assert choose_device("cuda:0") == torch.device("cuda", 0)
    assert describe(torch.device("cuda", 0)).endswith("60.0 free, ROCm 6.2)")
    assert describe(torch.device("cpu")) == "cpu"


def test_a_refusal_comes_before_any_work(machine: Machine) -> None:
    """[TRAIN-009]"""
    machine(("A", 10, None))
    with pytest.raises(ResourceError, match="cuda:1 was asked for"):
        new(options={"accelerator": "cuda:1"})
