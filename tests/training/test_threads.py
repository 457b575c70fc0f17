"""The number of threads of a training."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from ptychopinn.bundle import ArchiveKind, Bundle, Manifest, Writer
from ptychopinn.config import ModelConfig
from ptychopinn.cores import CoreLoad
from ptychopinn.training.threads import choose_threads, thread_tensors
from ptychopinn.typing import AnyArray


class BusyMachine(CoreLoad):
    """One of whose cores is free."""

    def choose_threads(self, largest: int) -> int:
        return min(largest, 1)


def checkpoint(**weights: AnyArray) -> Bundle:
    writer = Writer(ptychopinn="0", backend="numpy")
    return Bundle(Manifest(kind=ArchiveKind.CHECKPOINT, writer=writer, model=ModelConfig()), weights)


def test_the_option_is_followed() -> None:
    """[RUN-010]"""
    assert choose_threads(3, 8, BusyMachine(), checkpoint(**thread_tensors(5))) == 3


def test_a_resumed_training_keeps_its_number() -> None:
    """[RUN-010] Its rounding would change; a checkpoint of an older version has none."""
    assert choose_threads(None, 8, BusyMachine(), checkpoint(**thread_tensors(5))) == 5
    assert choose_threads(None, 8, BusyMachine(), checkpoint(other=np.ones(1))) == 1


def test_a_lower_number_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """[RUN-010]"""
    caplog.set_level(logging.INFO, "ptychopinn")
    assert choose_threads(None, 8, BusyMachine(), None) == 1
    assert "1 of 8 threads" in caplog.text
