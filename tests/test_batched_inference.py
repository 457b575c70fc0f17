"""Patterns in, patches out: every pattern once, in order, in batches that fit."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from ptychopinn.batched_inference import stream_patches
from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import Cancelled, ResourceError
from ptychopinn.monitor import NULL_MONITOR, Monitor, Progress
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import ComplexArray, FloatArray, IntArray


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=32, rows=3, cols=4, seed=1))


class Network:
    """Returns the counts themselves, and fails above a batch size."""

    def __init__(self, fits: int = 1000, error: Exception | None = None) -> None:
        self.fits, self.error = fits, error or MemoryError("no room")
        self.batches: list[int] = []

    def __call__(self, counts: FloatArray) -> ComplexArray:
        self.batches.append(len(counts))
        if len(counts) > self.fits:
            raise self.error
        return counts[:, 0].astype(np.complex64)


def run(scan: ScanDataset, size: int, network: Network, monitor: Monitor = NULL_MONITOR) -> ComplexArray:
    batches = list(
        stream_patches(
            Patterns(scan),
            size,
            network,
            patterns_per_patch=1,
            out_of_memory=lambda error: isinstance(error, MemoryError) or "full" in str(error),
            monitor=monitor,
        )
    )
    indices = np.concatenate([np.zeros(0, np.int64), *(batch.indices for batch in batches)])
    np.testing.assert_array_equal(indices, np.arange(len(scan)))
    return np.concatenate([np.zeros((0, 32, 32), np.complex64), *(batch.patches for batch in batches)])


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 12])
def test_every_pattern_comes_once(scan: ScanDataset, count: int) -> None:
    """[RECON-001] 0, 1, batch - 1, batch, batch + 1 patterns; DC is at [0, 0]."""
    network = Network()
    part = scan.select(np.arange(count))
    found = run(part, 5, network)
    np.testing.assert_array_equal(found.real, np.fft.ifftshift(part.counts(slice(None)), axes=(1, 2)))
    assert network.batches == [5] * (count // 5) + [count % 5] * (count % 5 > 0)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("the device is full")])
def test_a_batch_that_does_not_fit_is_halved(
    scan: ScanDataset, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """[RECON-002] logged, and the result is the same."""
    network = Network(fits=3, error=error)
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        found = run(scan, 12, network)
    np.testing.assert_array_equal(found, run(scan, 12, Network()))
    assert network.batches == [12, 6, 3, 3, 3, 3]
    assert "A batch of 12 patterns does not fit into memory; continuing with 6." in caplog.text


def test_not_even_one_pattern_fits(scan: ScanDataset) -> None:
    """[RECON-002]"""
    with pytest.raises(ResourceError, match="even one pattern") as caught:
        run(scan, 8, Network(fits=0))
    assert isinstance(caught.value.__cause__, MemoryError)


def test_other_errors_are_not_taken_for_memory(scan: ScanDataset) -> None:
    network = Network(fits=0, error=RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(scan, 8, network)
    assert network.batches == [8]


def test_progress_and_cancellation(scan: ScanDataset) -> None:
    seen: list[Progress] = []
    run(scan, 5, Network(), Monitor(seen.append))
    assert [(p.stage, p.done, p.total) for p in seen] == [("predict", done, 12) for done in (0, 5, 10, 12)]

    monitor = Monitor(lambda progress: monitor.cancel() if progress.done >= 5 else None)
    network = Network()
    with pytest.raises(Cancelled, match="after 5 of 12 patterns"):
        run(scan, 5, network, monitor)
    assert network.batches == [5]


def test_nothing_is_done_before_the_first_batch_is_asked_for(scan: ScanDataset) -> None:
    network = Network()
    stream = stream_patches(
        Patterns(scan), 5, network, patterns_per_patch=1, out_of_memory=lambda error: False, monitor=NULL_MONITOR
    )
    assert network.batches == []
    next(stream)
    assert network.batches == [5]


def test_the_next_patterns_are_read_while_a_batch_is_predicted(
    scan: ScanDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = threading.Event()
    real = Patterns.groups

    def reading(self: Patterns, groups: IntArray) -> FloatArray:
        if groups.ravel().tolist() == [8, 9, 10, 11]:
            read.set()
        return real(self, groups)

    monkeypatch.setattr(Patterns, "groups", reading)

    def predict(counts: FloatArray) -> ComplexArray:
        if predicted == 4:
            assert read.wait(timeout=10)  # of the third batch, in the second's prediction
        return counts[:, 0].astype(np.complex64)

    predicted = 0
    for batch in stream_patches(
        Patterns(scan), 4, predict, patterns_per_patch=1, out_of_memory=lambda error: False, monitor=NULL_MONITOR
    ):
        predicted += len(batch.indices)
    assert predicted == 12


def test_a_stream_that_is_left_leaves_no_thread(scan: ScanDataset) -> None:
    before = set(threading.enumerate())
    stream = stream_patches(
        Patterns(scan), 5, Network(), patterns_per_patch=1, out_of_memory=lambda error: False, monitor=NULL_MONITOR
    )
    next(stream)
    assert set(threading.enumerate()) != before
    stream.close()
    assert set(threading.enumerate()) == before


def test_a_failed_read_is_an_error_of_its_batch(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Patterns.groups

    def reading(self: Patterns, groups: IntArray) -> FloatArray:
        if groups[0, 0] == 10:
            raise OSError("the disk is gone")
        return real(self, groups)

    monkeypatch.setattr(Patterns, "groups", reading)
    network = Network()
    with pytest.raises(OSError, match="the disk is gone"):
        run(scan, 5, network)
    assert network.batches == [5, 5]
