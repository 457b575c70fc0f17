"""The small study of the examples, with the network that it names: specs/15-study.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ptychopinn.comparison import comparison_settings, study_run
from ptychopinn.comparison.cells import Point
from ptychopinn.config.files import read_config_file
from ptychopinn.plugins import discover, missing_requirements

SMALL = Path(__file__).resolve().parents[2] / "examples" / "studies" / "small.yaml"


@pytest.mark.slow
def test_the_small_example(tmp_path: Path) -> None:
    """[STUDY-005] It runs with its candidates, and dense scans and many photons are better."""
    specs = discover().specs
    if "torch" not in specs or missing_requirements(specs["torch"]):
        pytest.skip("not installed: torch")
    settings = comparison_settings(**read_config_file(SMALL))
    result = study_run(settings, tmp_path / "out")
    assert not result.failed
    assert {m.candidate for m in result.medians} == {"torch-pinn", "rpie"}
    assert all(m.median is not None for m in result.medians if m.metric == "nrmse")
    found = {m.point: m.median for m in result.medians if m.candidate == "rpie" and m.metric == "nrmse"}
    best, worst = Point(1e5, 0.7, None, None), Point(1e3, 0.45, None, None)
    assert found[best] is not None
    assert found[worst] is not None
    assert found[best] < found[replace(best, photons=1e3)] < found[worst]
