"""The benchmark of error over seconds, in its smallest form."""

from __future__ import annotations

import json
from pathlib import Path

import clock
import pytest


@pytest.mark.slow
def test_a_table_and_curves_come_of_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock.main([str(tmp_path), "--scans", "1e6-dense-wrong", "--rows", "5", "--seconds", "0.05"])
    curves = json.loads((tmp_path / "clock.json").read_text("utf-8"))["curves"]["1e6-dense-wrong"]
    assert {clock.OURS, clock.RPIE} <= curves.keys()
    for curve in curves.values():
        seconds, errors = zip(*curve, strict=True)
        assert seconds == tuple(sorted(seconds))
        assert seconds[0] == 0
        assert min(errors) < errors[0]  # that of a flat object
    assert "| 1e6-dense-wrong |" in (tmp_path / "clock.md").read_text("utf-8")
    assert "Median of the medians" in capsys.readouterr().out
    assert (tmp_path / "clock.png").stat().st_size > 1000


def test_the_ratio_is_of_the_best_other_method_at_the_same_time() -> None:
    curves = {clock.OURS: [(0.0, 1.0), (2.0, 0.1)], "a": [(0.0, 1.0), (1.0, 0.5)], "b": [(0.0, 1.0), (3.0, 0.2)]}
    assert clock.ratios(curves, [0.5, 1.0, 2.0, 4.0]) == [2.0, 0.2, 0.5]
