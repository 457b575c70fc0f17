"""From arrivals to an object: specs/17-streaming.md."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_backend import NumpyReconstructor

from ptychopinn.assembly import PhaseRule, Synchronisation
from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.dataset import Measurement, ScanDataset, ScanMetadata
from ptychopinn.data.from_arrays import mend_scan
from ptychopinn.data.io import read_scan
from ptychopinn.errors import ConfigError, DataError, ResourceError
from ptychopinn.live import Arrival, Chunk, LiveScan, Rejection, Setup, StreamStatus, Update, stream
from ptychopinn.monitor import Monitor
from ptychopinn.reconstruction import Reconstruction, reconstruct
from ptychopinn.simulate import simulate_scan
from ptychopinn.system import PlacedFile

N = 32
QUICK = InferConfig(inference_batch_size=16, refine=0)


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    made = simulate_scan(SimulationConfig(N=N, rows=10, cols=10, seed=1, object_shape=(96, 96)))
    return replace(made, object_guess=None)


@pytest.fixture(scope="module")
def trained(scan: ScanDataset) -> NumpyReconstructor:
    reconstructor = NumpyReconstructor(ModelConfig(N=N))
    reconstructor.train(scan, TrainConfig(nepochs=6))
    return reconstructor


@pytest.fixture(scope="module")
def whole(scan: ScanDataset, trained: NumpyReconstructor) -> Reconstruction:
    return reconstruct(trained, scan, QUICK)


def chunk_of(scan: ScanDataset, rows: Iterable[int], **changes: Any) -> Chunk:
    chosen = np.array(list(rows), np.int64)
    chunk = Chunk(chosen, scan.positions[chosen], np.asarray(scan.patterns[chosen]), Measurement.COUNTS)
    return replace(chunk, **changes)


def chunks(scan: ScanDataset, order: Iterable[int], size: int = 7) -> list[Arrival]:
    chosen = list(order)
    return [chunk_of(scan, chosen[low : low + size]) for low in range(0, len(chosen), size)]


def last(updates: Iterator[Update]) -> Update:
    *_, end = updates
    assert end.result is not None
    return end


def difference(found: Reconstruction, expected: Reconstruction) -> float:
    assert found.frame == expected.frame
    return float(np.linalg.norm(found.object - expected.object) / np.linalg.norm(expected.object))


@pytest.mark.parametrize("order", ["as scanned", "any", "backwards, one by one"])
def test_the_object_is_that_of_the_whole_scan(
    order: str, scan: ScanDataset, trained: NumpyReconstructor, whole: Reconstruction
) -> None:
    """[STREAM-001] to 1%, in any order."""
    numbers = {
        "as scanned": np.arange(100),
        "any": np.random.default_rng(0).permutation(100),
        "backwards, one by one": np.arange(100)[::-1],
    }[order]
    end = last(stream(trained, chunks(scan, numbers, 1 if "one" in order else 7), QUICK))
    assert end.ending is StreamStatus.FINISHED
    assert (end.patterns, end.repeated, end.refused, end.missing) == (100, 0, 0, 0)
    assert difference(end.result, whole) < 0.01
    assert end.result.residual == pytest.approx(whole.residual, rel=0.01)
    assert end.result.placed == 100


def test_the_object_is_there_while_the_scan_goes_on(
    scan: ScanDataset, trained: NumpyReconstructor, whole: Reconstruction
) -> None:
    """[STREAM-002] newcomers join the object that is there, at its phase; it explains the patterns nearly as well."""
    with LiveScan(trained, QUICK) as live:
        assert live.stitched() is None
        residuals = []
        for chunk in chunks(scan, range(100)):
            live.add(chunk)
            found = live.stitched()
            assert found is not None
            residuals.append(found[1])
        stitched, residual = found
    assert residual < 1.5 * whole.residual
    assert max(residuals) < 2 * whole.residual
    (y, x), (h, w) = np.subtract(whole.frame.origin, stitched.frame.origin), whole.frame.shape
    part, covered = stitched.object[y : y + h, x : x + w], whole.coverage > 0.3
    turn = np.vdot(part[covered], whole.object[covered])
    off = part[covered] * turn / abs(turn) - whole.object[covered]
    assert np.linalg.norm(off) < 0.1 * np.linalg.norm(whole.object[covered])


@pytest.mark.parametrize("synchronise", ["on", "off"])
def test_other_ways_to_synchronise(synchronise: str, scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-001]"""
    config = InferConfig(inference_batch_size=16, synchronise=synchronise, refine=0)
    end = last(stream(trained, chunks(scan, range(100)), config))
    assert end.result.synchronised == Synchronisation(PhaseRule(synchronise))
    assert difference(end.result, reconstruct(trained, scan, config)) < 0.01


def test_refinement_acts_at_the_end(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-001]"""
    config = InferConfig(inference_batch_size=16, refine=1)
    end = last(stream(trained, chunks(scan, range(100)), config))
    assert end.result.refined is not None
    assert difference(end.result, reconstruct(trained, scan, config)) < 0.01


def test_no_pass_unless_it_is_asked_for(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-001] [REFINE-009] Not by the default of other reconstructions, nor for a setting that needs passes."""
    for config in (None, InferConfig(inference_batch_size=16)):
        assert last(stream(trained, chunks(scan, range(40)), config)).result.refined is None
    with pytest.raises(ConfigError, match="refine_probe has no effect without refine"):
        LiveScan(trained, InferConfig(refine_probe=True))


def test_gaps_repeats_and_disorder(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-003] A number that comes again is left out, also within one chunk; gaps are counted."""
    kept = np.r_[0:40, 60:100]
    again = chunk_of(scan, [3, 3, 70, 70], patterns=np.zeros((4, N, N), np.uint16))
    arrivals = [*chunks(scan, kept), again, chunk_of(scan, [5])]
    end = last(stream(trained, arrivals, QUICK))
    assert (end.patterns, end.repeated, end.missing) == (80, 5, 20)
    assert difference(end.result, reconstruct(trained, scan.select(kept), QUICK)) < 0.01
    twice = [chunk_of(scan, [*range(50), *range(50)]), chunk_of(scan, range(50, 100))]
    assert last(stream(trained, twice, QUICK)).repeated == 50


def test_what_cannot_be_used_is_refused(
    scan: ScanDataset, trained: NumpyReconstructor, whole: Reconstruction, caplog: pytest.LogCaptureFixture
) -> None:
    """[STREAM-004] with a warning; the rest of a chunk is used, and the result is what it would be without."""
    good = chunks(scan, range(100))
    nan = np.full((2, 2), np.nan)
    bad: list[Arrival] = [
        Rejection("Noise on the line."),
        chunk_of(scan, [0], indices=np.array([200]), patterns=np.zeros((1, 16, 16), np.uint16)),
        chunk_of(scan, [0, 1], indices=np.array([300, 301]), positions=nan),
        chunk_of(scan, [0], indices=np.array([-5])),
        chunk_of(scan, [0], indices=np.array([302]), positions=np.array([[1e6, 1e6]])),
        chunk_of(scan, [0], indices=np.array([303]), measurement=Measurement.AMPLITUDE),
        chunk_of(scan, [0], indices=np.array([304]), patterns=np.full((1, N, N), -1.0)),
        chunk_of(scan, [0], indices=np.array([305]), patterns=np.full((1, N, N), np.nan, np.float32)),
        chunk_of(scan, [0], indices=np.array([306]), patterns=np.ones((1, N, N), np.float64)),
        Setup(probe=np.ones((1, N, N), np.complex64)),
        chunk_of(scan, [], patterns=np.zeros((0, N, N), np.uint32)),
    ]
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        end = last(stream(trained, [good[0], *bad, *good[1:]], QUICK))
    assert end.refused == 10
    assert end.patterns == 100
    assert difference(end.result, whole) < 0.01
    assert "Noise on the line." in caplog.text
    assert "the model needs (1, 32, 32)" in caplog.text
    mixed = chunk_of(scan, range(4), positions=np.vstack([scan.positions[:3], nan[:1]]))
    assert last(stream(trained, [mixed], QUICK)).patterns == 3


def test_a_flood_of_refusals_is_not_a_flood_of_warnings(
    scan: ScanDataset, trained: NumpyReconstructor, caplog: pytest.LogCaptureFixture
) -> None:
    """[STREAM-004]"""
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        end = last(stream(trained, [*[Rejection("Noise.")] * 1000, *chunks(scan, range(20))], QUICK))
    assert end.refused == 1000
    assert caplog.text.count("Noise.") == 5 + 3


def test_a_dead_producer_ends_it(
    scan: ScanDataset, trained: NumpyReconstructor, caplog: pytest.LogCaptureFixture
) -> None:
    """[STREAM-005] with what is there, and a warning; refusals are no life."""

    def dying() -> Iterator[Arrival]:
        yield from chunks(scan, range(30))
        while True:
            yield from (None, Rejection("Noise.", 0))

    end = last(stream(trained, dying(), QUICK, timeout_s=0.2))
    assert (end.ending, end.patterns) == (StreamStatus.TIMED_OUT, 30)
    assert "No usable data for" in caplog.text


@pytest.mark.parametrize("kind", ["another N", "not finite", "the same again", "empty", "setups"])
def test_a_producer_of_rubbish_is_dead(kind: str, scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-005] Only new patterns, and a first setup, are life."""
    rubbish: dict[str, Arrival] = {
        "another N": chunk_of(scan, [40], patterns=np.zeros((1, 16, 16), np.uint16)),
        "not finite": chunk_of(scan, [40], positions=np.full((1, 2), np.nan)),
        "the same again": chunk_of(scan, [3]),
        "empty": chunk_of(scan, []),
        "setups": Setup(),
    }
    good, start = chunks(scan, range(0 if kind == "setups" else 30)), time.monotonic()

    def source() -> Iterator[Arrival]:
        yield from good
        while time.monotonic() - start < 20:
            yield rubbish[kind]
            time.sleep(0.01)

    updates = stream(trained, source(), QUICK, timeout_s=0.2)
    if kind == "setups":
        with pytest.raises(DataError, match="No pattern has arrived"):
            last(updates)
    else:
        end = last(updates)
        assert (end.ending, end.patterns) == (StreamStatus.TIMED_OUT, 30)
    assert time.monotonic() - start < 15


def test_what_comes_after_a_long_wait_is_taken(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-005] A source may block; what it then has is life."""

    def source() -> Iterator[Arrival]:
        for arrival in chunks(scan, range(21)):
            time.sleep(0.15)
            yield arrival

    assert last(stream(trained, source(), QUICK, timeout_s=0.1)).patterns == 21


def test_cancelled_it_keeps_what_is_there(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-005]"""
    monitor, closed = Monitor(), []

    def source() -> Iterator[Arrival]:
        try:
            yield from chunks(scan, range(30))
            monitor.cancel()
            while True:
                yield None
        finally:
            closed.append(True)

    end = last(stream(trained, source(), QUICK, monitor=monitor))
    assert (end.ending, end.patterns, closed) == (StreamStatus.CANCELLED, 30, [True])


def test_a_full_disk_ends_it_with_what_is_there(
    scan: ScanDataset, trained: NumpyReconstructor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[STREAM-006]"""

    write = PlacedFile.write

    def limited(self: PlacedFile, data: memoryview, at: int) -> None:
        if at + len(data) > 120_000:
            raise OSError(28, "No space left on device")
        write(self, data, at)

    monkeypatch.setattr(PlacedFile, "write", limited)
    monkeypatch.setattr("ptychopinn.live.scan._BUDGET_UNIT", 1)
    end = last(stream(trained, chunks(scan, range(100)), QUICK))
    assert end.ending is StreamStatus.OUT_OF_SPACE
    assert 20 < end.patterns < 100
    assert "No space left" in caplog.text


@pytest.mark.parametrize("error", [ResourceError("No room.", "Make some."), MemoryError("no room")])
def test_a_first_batch_that_does_not_fit_is_told(
    error: Exception, scan: ScanDataset, trained: NumpyReconstructor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[STREAM-006] There is nothing to make a result of."""

    def infer(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(trained, "infer", infer)
    with pytest.raises(ResourceError, match=r"No room|Memory ran out \(no room\)"):
        last(stream(trained, chunks(scan, range(30)), QUICK))


def test_beyond_the_budget_it_waits_in_scratch_files(
    scan: ScanDataset, trained: NumpyReconstructor, whole: Reconstruction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[STREAM-006] with the same result."""
    monkeypatch.setattr("ptychopinn.live.scan._BUDGET_UNIT", 1)
    end = last(stream(trained, chunks(scan, range(100)), QUICK))
    assert difference(end.result, whole) < 0.01


def test_the_dose_may_change_on_the_way(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-001] Patches that were predicted before the mean counts were known are predicted again."""
    dim = np.random.default_rng(0).binomial(np.asarray(scan.patterns), np.linspace(0.1, 1, 100)[:, None, None])
    dimmed = replace(scan, patterns=dim.astype(np.uint32))
    expected = reconstruct(trained, dimmed, QUICK)
    assert difference(last(stream(trained, chunks(dimmed, range(100)), QUICK)).result, expected) < 0.01


@pytest.mark.slow
def test_patterns_without_light_wait_for_light(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-001]"""
    dark = np.asarray(scan.patterns).copy()
    dark[:30] = 0
    darkened = mend_scan(replace(scan, patterns=dark))
    end = last(stream(trained, chunks(replace(scan, patterns=dark), range(100)), QUICK))
    assert end.patterns == 100
    assert difference(end.result, reconstruct(trained, darkened, QUICK)) < 0.01


def test_a_scan_that_is_nearly_dark_goes_on(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-001] One pattern with light, where nobody looks to judge by."""
    dark = np.zeros((400, N, N), np.uint16)
    dark[2] = np.minimum(np.asarray(scan.patterns[2]), 65535)
    chunk = Chunk(np.arange(400), np.tile(scan.positions, (4, 1)), dark, Measurement.COUNTS)
    with LiveScan(trained, QUICK) as live:
        for low in range(0, 400, 50):
            live.add(chunk.select(slice(low, low + 50)))
        assert len(live) == 400
        with pytest.raises(DataError, match="without a photon"):
            live.stitched()


def test_every_pattern_is_predicted(trained: NumpyReconstructor) -> None:
    """[REFINE-014]"""
    with pytest.raises(ConfigError, match="predict_overlap needs the whole scan"):
        next(stream(trained, iter(()), InferConfig(refine=1, predict_overlap=0.4)))


@pytest.mark.parametrize("patterns", [0, 10])
def test_nothing_to_see_is_refused(patterns: int, scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-005] No pattern, or none with a photon."""
    arrivals = [chunk_of(scan, range(patterns), patterns=np.zeros((patterns, N, N), np.uint16))] if patterns else []
    with pytest.raises(DataError, match="photons" if patterns else "No pattern has arrived"):
        last(stream(trained, arrivals, QUICK))


def test_the_setup_brings_probe_and_bad_pixels(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-007]"""
    bad = np.zeros((N, N), bool)
    bad[3:5] = True
    config = InferConfig(inference_batch_size=16, probe_source="scan", refine=0)
    marked = replace(scan, bad_pixels=bad)
    broken = np.asarray(scan.patterns).astype(np.float64)
    broken[:, bad] = np.nan
    source = replace(scan, patterns=broken)
    end = last(stream(trained, [Setup(scan.probe, bad), *chunks(source, range(100))], config))
    assert end.refused == 0
    assert difference(end.result, reconstruct(trained, marked, config)) < 0.01
    with pytest.raises(ConfigError, match="no probe arrived"):
        last(stream(trained, chunks(scan, range(5)), config))
    with LiveScan(trained) as live:
        refused = live.set_up(Setup(probe=np.ones((1, 64, 64), np.complex64)))
        assert refused is not None
        refused = live.set_up(Setup(bad_pixels=np.ones((64, 64), bool)))
        assert refused is not None
        refused = live.set_up(Setup(probe=np.zeros((1, N, N), np.complex64)))
        assert refused is not None
        assert "no energy" in refused.reason


@pytest.mark.parametrize(
    ("level", "nphotons", "photons"),
    [(1e-3, 2e4, 2e4), (1e-3, None, 1e6), (1.0, 2e4, None), (1.3, None, None)],
    ids=["normalised", "nobody says", "roots of counts", "squares hold photons"],
)
def test_amplitudes_get_the_dose_that_a_file_gives_them(
    level: float,
    nphotons: float | None,
    photons: float | None,
    scan: ScanDataset,
    trained: NumpyReconstructor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[STREAM-001] [STREAM-007] Of the metadata, or assumed with a warning; roots of counts carry their own."""
    metadata = ScanMetadata(measurement=Measurement.AMPLITUDE, nphotons=nphotons)
    amplitudes = (level * np.sqrt(np.asarray(scan.patterns))).astype(np.float32)
    arrays = {"diffraction": amplitudes, "probeGuess": scan.probe, "_metadata": np.array(metadata.model_dump_json())}
    np.savez(tmp_path / "s.npz", **arrays, ycoords=scan.positions[:, 0], xcoords=scan.positions[:, 1])
    read = read_scan(tmp_path / "s.npz")
    expected = reconstruct(trained, read, QUICK)
    source = replace(scan, patterns=amplitudes)
    arrivals = [replace(c, measurement=Measurement.AMPLITUDE) for c in chunks(source, range(100))]  # type: ignore
    caplog.clear()
    updates = stream(trained, [Setup(scan.probe, metadata=metadata), *arrivals], QUICK)
    end = next(update for update in updates if update.result is not None)
    assert end.result is not None
    assert difference(end.result, expected) < 0.01
    energies = [float((np.abs(found.probe) ** 2).sum()) for found in (end.result, expected)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-3)
    data = end.scan.data()
    assert data.counts_per_unit == pytest.approx(read.counts_per_unit, rel=1e-4)
    assert data.metadata.nphotons == pytest.approx(read.metadata.nphotons, rel=1e-4)
    assert data.metadata.nphotons_assumed == read.metadata.nphotons_assumed
    if photons is not None:
        assert data.metadata.nphotons == pytest.approx(photons, rel=1e-3)
    assert ("are assumed" in caplog.text) == (photons == 1e6)


def test_updates_tell_rate_and_latency(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STREAM-008]"""
    seen = []
    updates = list(
        stream(
            trained,
            [replace(c, sent=1.0) if isinstance(c, Chunk) else c for c in chunks(scan, range(40))],
            QUICK,
            update_s=0,
            monitor=Monitor(seen.append),
        )
    )
    counts = [update.patterns for update in updates]
    assert counts == sorted(counts)
    assert updates[-1].patterns == 40
    assert all(update.result is None for update in updates[:-1])
    assert any(update.rate > 0 for update in updates)
    assert any(update.latency_s > 1e9 for update in updates)  # since 1970
    assert [p.figures for p in seen if p.stage == "stream" and "latency s" in p.figures]


def test_parts_that_do_not_meet_join_later(
    scan: ScanDataset, trained: NumpyReconstructor, whole: Reconstruction
) -> None:
    """[STREAM-002] Two ends of the scan first, what lies between last."""
    order = [*range(20), *range(80, 100), *range(20, 80)]
    updates = list(stream(trained, chunks(scan, order), QUICK, update_s=0))
    assert not math.isnan(updates[-1].result.residual)  # type: ignore[union-attr]
    assert difference(updates[-1].result, whole) < 0.01  # type: ignore[arg-type]


def test_marks_of_gaps_become_bad_pixels(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[DATA-127] and the object is that of the scan with a mask."""
    counts = np.asarray(scan.patterns).astype(np.uint32)
    counts[:, 21] = 2**32 - 1
    marked = replace(scan, patterns=counts)
    mask = np.zeros((N, N), bool)
    mask[21] = True
    with LiveScan(trained, QUICK) as live:
        for number in range(0, 100, 20):
            assert live.add(chunk_of(marked, range(number, number + 20))) == (20, 0, [])
        found, result = live.data(), live.finish()
    np.testing.assert_array_equal(found.bad_pixels, mask)
    assert [problem.code for problem in found.findings] == ["DATA-035"]
    expected = reconstruct(trained, replace(scan, bad_pixels=mask), QUICK)
    assert difference(result, expected) < 0.01


def test_marks_in_some_patterns_are_bad_there(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[DATA-127] [DATA-130] One pattern a message: a pixel is bad in all while half of the patterns have its mark."""
    masks = np.zeros((100, N, N), bool)
    masks[:3, 21] = masks[::9, 13] = True
    counts = np.asarray(scan.patterns).astype(np.uint32)
    counts[masks] = 2**32 - 1
    marked = replace(scan, patterns=counts)
    with LiveScan(trained, QUICK) as live:
        for number in range(100):
            assert live.add(chunk_of(marked, [number])) == (1, 0, [])
            assert live.data().bad_pixels[21].all() == (number < 6)
        found, result = live.data(), live.finish()
    assert not found.bad_pixels.any()
    assert found.bad_values is not None
    np.testing.assert_array_equal(found.bad_values.masks(slice(None)), masks)
    assert [problem.code for problem in found.findings] == ["DATA-035"]
    assert found.metadata.nphotons == pytest.approx(scan.counts(slice(None)).sum() / 100, rel=0.01)
    expected = reconstruct(trained, replace(scan, bad_values=BadValues.of_masks(masks)), QUICK)
    assert difference(result, expected) < 0.01


def test_a_stream_of_which_no_picture_can_be_right_is_named(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[DATA-133] [DATA-134] As a file is: exposures that are no counts, and positions that do not overlap."""
    odd = replace(scan, patterns=np.zeros_like(scan.patterns) + scan.patterns[:1], positions=10 * scan.positions)
    found, none = (
        {one.code for one in last(stream(trained, chunks(given, range(100)), QUICK)).scan.data().findings}
        for given in (odd, scan)
    )
    assert {"DATA-133", "DATA-134"} <= found
    assert not none


def test_a_stream_is_mended_at_its_end_as_a_file_is(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[DATA-127] [DATA-120] [DATA-121] [DATA-123] [DATA-124] and its object is that of a scan without all that."""
    counts, positions = np.asarray(scan.patterns).astype(np.uint32), scan.positions.copy()
    counts[:, 20, 9] = 50 * counts.max()
    counts[:, 15, 17] = 0
    counts[40] *= 100
    positions[70] += 5000
    odd = replace(scan, patterns=counts, positions=positions)
    mask = np.zeros((N, N), bool)
    mask[20, 9] = mask[15, 17] = True
    good = np.setdiff1d(np.arange(100), [40, 70])
    with LiveScan(trained, QUICK) as live:
        for number in range(0, 100, 20):
            assert live.add(chunk_of(odd, range(number, number + 20)))[0] == 20
        result, data = live.finish(), live.data()
        np.testing.assert_array_equal(live.indices, good)
    codes = {problem.code for problem in data.findings}
    assert {"DATA-120", "DATA-121", "DATA-123", "DATA-124"} <= codes
    np.testing.assert_array_equal(data.bad_pixels, mask)
    np.testing.assert_array_equal(data.positions, scan.positions[good])
    expected = reconstruct(trained, replace(scan.select(good), bad_pixels=mask), QUICK)
    assert data.metadata.nphotons == pytest.approx(scan.select(good).counts(slice(None))[:, ~mask].sum() / 98, rel=1e-3)
    assert difference(result, expected) < 0.01


def test_positions_in_metres_are_a_warning_of_a_stream(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[DATA-127] [DATA-122] The patterns may be nowhere else, so there is a result."""
    end = last(stream(trained, chunks(replace(scan, positions=1e-8 * scan.positions), range(100)), QUICK))
    assert "DATA-122" in {problem.code for problem in end.scan.data().findings}
