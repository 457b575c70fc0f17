"""When losses are read. Requirements: specs/10-training.md."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ptychopinn.training.readings import ReadingClock


@pytest.mark.parametrize(("on_gpu", "expected"), [(False, [True] * 5), (True, [True, False, False, True, False])])
def test_a_gpu_is_waited_for_a_few_times_a_second(
    monkeypatch: pytest.MonkeyPatch, on_gpu: bool, expected: list[bool]
) -> None:
    """[TRAIN-014]"""
    ticks = iter([10.0, 10.1, 10.2, 10.3, 10.4])
    monkeypatch.setattr("ptychopinn.training.readings.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    clock = ReadingClock(on_gpu=on_gpu)
    assert [clock.due() for _ in range(5)] == expected
