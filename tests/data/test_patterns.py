"""Patterns where they are used. Requirements: specs/19-arrays.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from array_libraries import CountingLibrary

from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.simulate import simulate_scan

N = 32
CHOSEN = [np.array([5, 3, 11]), np.array([0]), np.array([14, 15])]


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=4, cols=4, seed=1, bad_pixel_fraction=0.03))


def in_dtype(scan: ScanDataset, dtype: str) -> ScanDataset:
    """Patterns of one dtype, with values that a signed number of its width would not hold."""
    most = min(np.iinfo(dtype).max, 60_000) if np.dtype(dtype).kind in "iu" else 60_000
    patterns = np.minimum(scan.counts(slice(None)), most).astype(dtype)
    patterns[:, 16, 16] = most
    return replace(scan, patterns=patterns, measurement=Measurement.COUNTS)


@pytest.mark.parametrize("budget_bytes", [1 << 30, 0], ids=["kept", "read"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_a_library_gets_the_patterns_of_the_host(scan: ScanDataset, dtype: str, budget_bytes: int) -> None:
    """[ARR-003] Kept on its device, or read for every batch."""
    data = in_dtype(scan, dtype)
    library = CountingLibrary(budget_bytes)
    here, there = Patterns(data, library), Patterns(data)
    assert there.good is not None
    assert here.good is not None
    np.testing.assert_array_equal(library.to_host(here.good), there.good)
    for indices in CHOSEN:
        np.testing.assert_allclose(library.to_host(here.counts(indices)), there.counts(indices), rtol=1e-6)
        np.testing.assert_allclose(library.to_host(here.amplitudes(indices)), there.amplitudes(indices), rtol=1e-6)
    groups = np.array([[1, 2, -1], [2, 7, 9]])
    np.testing.assert_allclose(library.to_host(here.groups(groups)), there.groups(groups), rtol=1e-6)
    batches = list(zip(here.batches(CHOSEN), there.batches(CHOSEN), CHOSEN, strict=True))
    assert len(batches) == 3
    for (indices, fetch), (_, expected), chosen in batches:
        np.testing.assert_array_equal(indices, chosen)
        for part in (slice(0, 1), slice(0, len(chosen))):
            np.testing.assert_allclose(library.to_host(fetch(part)), expected(part), rtol=1e-6)


@pytest.mark.parametrize("itemsize", [2, 4])
def test_patterns_come_once_where_they_fit(scan: ScanDataset, itemsize: int) -> None:
    """[ARR-003] In their own width, to the last byte of the budget."""
    data = in_dtype(scan, "uint16" if itemsize == 2 else "float32")
    for budget, kept in ((len(data) * N**2 * itemsize, True), (len(data) * N**2 * itemsize - 1, False)):
        library = CountingLibrary(budget)
        patterns = Patterns(data, library)
        library.came.clear()
        for _, fetch in patterns.batches(CHOSEN):
            fetch(slice(0, 1))
        assert [shape for shape in library.came if len(shape) == 3] == (
            [] if kept else [(3, N, N), (1, N, N), (2, N, N)]
        )


@pytest.mark.parametrize("budget_bytes", [1 << 30, 0])
def test_amplitudes_are_kept_on_the_host_while_they_fit(scan: ScanDataset, budget_bytes: int) -> None:
    """[REFINE-008] They are read once."""
    read: list[int] = []

    class Counted(ScanDataset):
        def counts(self, indices):  # type: ignore[no-untyped-def]
            read.append(len(indices))
            return super().counts(indices)

    data = Counted(scan.patterns, scan.measurement, scan.positions, scan.probe, bad_pixels=scan.bad_pixels)
    patterns = Patterns(data, host_budget_bytes=budget_bytes)
    expected = np.fft.ifftshift(np.sqrt(scan.counts(np.array([2, 7]))), axes=(1, 2))
    for _ in range(3):
        np.testing.assert_allclose(patterns.amplitudes(np.array([2, 7])), expected)
    assert read == ([len(scan)] if budget_bytes else [2, 2, 2])
