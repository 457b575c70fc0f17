"""Rows of a comparison: specs/14-comparison.md."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ptychopinn.comparison.table import (
    DISTANCE,
    MINUS,
    PASSES,
    CandidateOutcome,
    Row,
    Status,
    comparison_figures,
    make_rows,
    passes_text,
    read_table,
    summarise,
    write_table,
)
from ptychopinn.errors import DataError

SSIM, TIME = ("phase", "ssim"), ("run", "training_seconds")
A = CandidateOutcome(
    "a", "", {"test": ({SSIM: 0.5, TIME: 3.0, ("amp", "mae"): math.nan}, {("amp", "ssim"): "no reference"})}
)
B = CandidateOutcome("b", "", {"test": ({SSIM: 0.75, TIME: 1.0}, {})})
C = CandidateOutcome("c", "boom", {})


@pytest.fixture
def rows() -> list[Row]:
    return make_rows([A, B, C], ["test"], comparison_figures(), "a", {("a", "test"): 0.0, ("b", "test"): 0.25})


def one(rows: list[Row], candidate: str, figure: tuple[str, str]) -> Row:
    (found,) = [row for row in rows if row.candidate == candidate and (row.quantity, row.metric) == figure]
    return found


def test_every_leg_has_every_row(rows: list[Row]) -> None:
    """[COMP-030]"""
    assert len(rows) == 3 * len(comparison_figures())
    assert len(set(comparison_figures())) == len(comparison_figures())


def test_statuses(rows: list[Row]) -> None:
    """[COMP-030] [COMP-031] A value where it is ok, a reason where it is not."""
    assert one(rows, "a", SSIM) == Row("a", "test", *SSIM, 0.5, Status.OK)
    assert one(rows, "a", ("amp", "ssim")) == Row("a", "test", "amp", "ssim", None, Status.SKIPPED, "no reference")
    assert one(rows, "a", ("amp", "mae")).status is Status.SKIPPED  # not finite
    assert {(row.value, row.status, row.message) for row in rows if row.candidate == "c"} == {
        (None, Status.FAILED, "boom")
    }
    assert all((row.value is not None) == (row.status is Status.OK) for row in rows)
    assert all(row.message for row in rows if row.status is not Status.OK)


def test_differences_to_the_baseline(rows: list[Row]) -> None:
    """[COMP-033]"""
    assert one(rows, "b", ("phase", "ssim" + MINUS)).value == 0.25
    assert one(rows, "b", ("run", "training_seconds" + MINUS)).value == -2
    assert one(rows, "a", ("phase", "ssim" + MINUS)).value == 0
    assert one(rows, "b", DISTANCE).value == 0.25
    of_c = make_rows([A, C], ["test"], comparison_figures(), "c")
    assert one(of_c, "a", ("phase", "ssim" + MINUS)).message == "the baseline has no value"


def test_passes_in_words() -> None:
    """[COMP-036] Alone at 0 only; a solver that does not say how many it makes has no value."""
    assert [passes_text(n) for n in (0, 1, 2.0, 1e5)] == ["alone", "1 pass", "2 passes", "100000 passes"]
    (row,) = make_rows([A], ["test"], [PASSES])
    assert (row.value, row.status, row.message) == (None, Status.SKIPPED, "it does not say how many")


def test_the_table_is_read_as_it_was_written(rows: list[Row], tmp_path: Path) -> None:
    """[COMP-030] Exactly these columns."""
    path = write_table(tmp_path / "t.csv", rows)
    assert path.read_text().splitlines()[0] == "leg,scan,quantity,metric,value,status,message"
    assert read_table(path) == rows


@pytest.mark.parametrize("text", ["", "leg,scan\n", "leg,scan,quantity,metric,value,status,message\na,b,c,d,x,ok,\n"])
def test_a_damaged_table_is_refused(tmp_path: Path, text: str) -> None:
    """[COMP-040]"""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=r"t\.csv cannot be read"):
        read_table(tmp_path / "t.csv")


def test_the_summary(rows: list[Row]) -> None:
    """[COMP-034] By candidate, and who is best at what."""
    summary = summarise(rows, "a")
    assert summary["legs"]["b"]["scans"]["test"]["phase"]["ssim"] == 0.75
    assert summary["legs"]["c"] | {"scans": {}} == {"status": "failed", "message": "boom", "scans": {}}
    assert summary["best"]["test"]["phase ssim"] == "b"
    assert summary["best"]["test"]["run training_seconds"] == "b"
