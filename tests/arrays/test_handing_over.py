"""What a prediction hands over, and where its arrays go from there. Requirements: specs/19-arrays.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from array_libraries import CountingLibrary
from array_suite.algorithms import SIZE, N, reconstructed

from ptychopinn.arrays import NUMPY
from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.simulate import simulate_scan


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=5, cols=5, nphotons=1e6, seed=3))


def large(shapes: list[tuple[int, ...]], pixels: int) -> list[tuple[int, ...]]:
    return [shape for shape in shapes if math.prod(shape) >= pixels]


@pytest.mark.parametrize("config", [{}, {"synchronise": "off"}, {"refine": 2, "refine_probe": True}])
def test_the_finished_object_alone_comes_to_the_host(scan: ScanDataset, config: dict[str, Any]) -> None:
    """[ARR-008] With its coverage; no patch, and nothing else of the object's size."""
    library = CountingLibrary()
    found = reconstructed(scan, library, patterns=True, **config)
    assert large(library.went, found.object.size) == [found.object.shape] * 2
    assert [shape for shape in library.went if shape[-2:] == (SIZE, SIZE)] == []


def test_patches_beyond_the_budget_go_by_the_host(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """[ARR-003] [ARR-008] Each once; the result is the same."""
    expected = reconstructed(scan, CountingLibrary(), patterns=True)
    library = CountingLibrary(8 * len(scan) * SIZE**2 - 1)
    monkeypatch.setattr("ptychopinn.tiles.PIXEL_BYTES", 0)
    found = reconstructed(scan, library, patterns=True)
    went = [shape[0] for shape in library.went if shape[1:] == (SIZE, SIZE)]
    assert sum(went) == len(scan)
    np.testing.assert_allclose(found.object, expected.object, atol=1e-5)


def test_an_object_beyond_the_budget_is_worked_on_by_the_host(
    scan: ScanDataset, caplog: pytest.LogCaptureFixture
) -> None:
    """[ARR-004] Which is told; the result is NumPy's own."""
    with caplog.at_level("WARNING", logger="ptychopinn"):
        found = reconstructed(scan, CountingLibrary(100), patterns=False, refine=1)
    assert "does not fit beside its passes on array_api_strict, nor do tiles; the host works on it" in caplog.text
    np.testing.assert_array_equal(found.object, reconstructed(scan, NUMPY, patterns=False, refine=1).object)


def test_patterns_that_are_handed_over_are_not_read_again(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """[ARR-002]"""

    def refused(*args: object) -> None:
        raise AssertionError("read again")

    for module in ("assembly", "reconstruction"):
        monkeypatch.setattr(f"ptychopinn.{module}.Patterns", refused)
    reconstructed(scan, CountingLibrary(), patterns=True, refine=2)
    with pytest.raises(AssertionError, match="read again"):
        reconstructed(scan, CountingLibrary(), patterns=False, refine=2)
