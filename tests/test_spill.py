"""Rows in memory and in a scratch file; pieces of work in threads."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychopinn.errors import ResourceError
from ptychopinn.parallel import spread
from ptychopinn.spill import SpillableRows

ROW = (3, 5)
ROW_BYTES = 15 * 2


def values(count: int) -> np.ndarray:
    return np.arange(count * 15, dtype=np.uint16).reshape(count, *ROW)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 7), max_size=6),
    kept=st.integers(0, 12),
    wanted=st.lists(st.integers(0, 10**6), max_size=9),
    bounds=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_appended_rows_come_back(sizes: list[int], kept: int, wanted: list[int], bounds: tuple[int, int]) -> None:
    """[SYNC-006] whether they are in memory, in the file, or in both."""
    given = values(sum(sizes))
    with SpillableRows(ROW, np.uint16, budget_bytes=kept * ROW_BYTES) as rows:
        start = 0
        for size in sizes:
            assert rows.append(given[start : start + size]).tolist() == list(range(start, start + size))
            start += size
        assert (len(rows), rows.shape, rows.ndim) == (start, (start, *ROW), 3)
        np.testing.assert_array_equal(rows[bounds[0] : bounds[1]], given[bounds[0] : bounds[1]])
        if start:
            chosen = np.array(wanted, np.int64) % start
            np.testing.assert_array_equal(rows[chosen], given[chosen])


@pytest.mark.parametrize("budget", [0, 100 * ROW_BYTES])
def test_expected_rows_are_written_in_any_order(budget: int) -> None:
    given, order = values(50), np.random.default_rng(0).permutation(50)
    with SpillableRows(ROW, np.uint16, budget_bytes=budget, expected=50) as rows:
        for start in range(0, 50, 7):
            rows[order[start : start + 7]] = given[order[start : start + 7]]
        np.testing.assert_array_equal(rows[:], given)
        with pytest.raises(IndexError):
            rows[np.array([50])]
        with pytest.raises(IndexError):
            rows[np.array([-1])] = given[:1]


def test_a_disk_that_fills_up_is_an_error_of_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with SpillableRows(ROW, np.uint16, budget_bytes=ROW_BYTES) as rows:
        monkeypatch.setattr("ptychopinn.spill.PlacedFile.write", full)
        rows.append(values(1))
        with pytest.raises(ResourceError, match=r"cannot grow in .*No space left"):
            rows.append(values(1))


def test_work_is_spread_in_order_and_its_errors_are_raised() -> None:
    assert spread(lambda x: x * x, range(50)) == [x * x for x in range(50)]
    assert spread(lambda x: x, []) == []
    with pytest.raises(ZeroDivisionError):
        spread(lambda x: 1 // x, [1, 0, 2])
