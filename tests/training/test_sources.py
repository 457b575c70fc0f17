"""Batches of several parts, and the memory that scans may take. Requirements: specs/10-training.md."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from ptychopinn.training.sources import Batch, BatchLoader, MemoryBudget


class Numbers:
    """A part that has one tensor."""

    def __init__(self, name: str, *, on_host: bool) -> None:
        self.name, self.on_host = name, on_host
        self.threads: set[str] = set()
        self.made: list[tuple[int, int]] = []

    def prepare(self, epoch: int, number: int) -> tuple[int, int]:
        self.threads.add(threading.current_thread().name)
        return epoch, number

    def make(self, prepared: tuple[int, int]) -> Batch:
        assert threading.current_thread() is threading.main_thread()
        self.made.append(prepared)
        return Batch({self.name: np.full((4, 2), prepared[1])}, 10)


def test_a_batch_has_what_each_part_has() -> None:
    """[TRAIN-015]"""
    one, other = Numbers("counts", on_host=True), Numbers("simulated_counts", on_host=False)
    found = list(BatchLoader([one, other], 3, 0).batches(5))
    assert one.made == other.made == [(5, 0), (5, 1), (5, 2)]
    assert [batch.tensors.keys() for batch in found] == [{"counts", "simulated_counts"}] * 3
    assert [(batch.patterns, batch.size) for batch in found] == [(20, 4)] * 3
    assert found[2].tensors["counts"][0, 0] == 2


@pytest.mark.parametrize(("on_host", "expected"), [(True, True), (False, False)])
def test_threads_do_the_work_of_the_host_where_there_is_some(on_host: bool, expected: bool) -> None:
    part = Numbers("counts", on_host=on_host)
    assert len(list(BatchLoader([part], 4, 2).batches(0))) == 4
    assert all(name.startswith("batches") for name in part.threads) == expected


def test_bytes_are_taken_while_they_are_there() -> None:
    budget = MemoryBudget(10, in_use=True)
    taken: Callable[[int], bool] = budget.take
    assert [taken(7), taken(4), taken(3), taken(1)] == [True, False, True, False]
    assert budget.left == 0
