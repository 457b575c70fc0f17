"""Pixels that are bad in some patterns: what stands there changes nothing. Requirements: specs/01-data.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from array_libraries import CountingLibrary

from ptychopinn.config import SimulationConfig
from ptychopinn.config.infer import Background, Likelihood
from ptychopinn.data.bad_values import BadValues, join_bad_values, unite
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.fingerprint import fingerprint
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, mean_pattern, probe_in_counts
from ptychopinn.errors import DataError
from ptychopinn.geometry import Canvas, Frame
from ptychopinn.metrics.baselines import noise_residual
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.monitor import NULL_MONITOR
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers.engine import PassEngine
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.solvers.options import PassOptions
from ptychopinn.solvers.positions import MAX_MOVE_PX
from ptychopinn.solvers.slow_phase import slow_phase
from ptychopinn.verdict import Evidence, judge

N = 32
GARBAGE = [np.nan, np.inf, -1.0, 65535.0, 4.3e9]


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=5, cols=5, nphotons=1e5, seed=3))


@pytest.fixture(scope="module")
def masks(scan: ScanDataset) -> np.ndarray:
    """A gap in every third pattern, single pixels in all."""
    found = np.random.default_rng(1).random((len(scan), N, N)) < 0.01
    found[::3, 18:21] = True
    return found


def with_garbage(scan: ScanDataset, masks: np.ndarray, seed: int) -> ScanDataset:
    """Anything beneath the marks."""
    patterns = np.array(scan.patterns, np.float64)
    patterns[masks] = np.random.default_rng(seed).choice(GARBAGE, int(masks.sum()))
    return replace(scan, patterns=patterns, bad_values=BadValues.of_masks(masks))


def probe_of(scan: ScanDataset) -> np.ndarray:
    return probe_in_counts(scan, fit_scaling(scan), follow_offset=True)


def passes(scan: ScanDataset, likelihood: Likelihood) -> list[np.ndarray]:
    """Everything free."""
    model = ScanModel(probe_of(scan), scan.positions)
    frame = Frame.around(scan.positions, N, MAX_MOVE_PX)
    options = PassOptions(
        rpie_schedule(3),
        update_probe=True,
        update_positions=True,
        update_flux=True,
        update_background=Background.SMOOTH,
        likelihood=likelihood,
    )
    engine = PassEngine(
        Patterns(scan), np.arange(len(scan)), model, Canvas(np.ones(frame.shape, np.complex64), frame), options
    )
    residuals = [engine.run(k, 3, NULL_MONITOR) for k in range(3)]
    assert engine.flux is not None
    return [np.array(residuals), engine.canvas.array, engine.probe, engine.positions, engine.flux, engine.background]


def residual(scan: ScanDataset, likelihood: Likelihood) -> np.ndarray:
    assert scan.object_guess is not None
    canvas = Canvas(scan.object_guess * np.complex64(0.9), Frame(scan.object_guess.shape))
    found = ForwardResidual(ScanModel(probe_of(scan), scan.positions), Patterns(scan), likelihood=likelihood)
    return np.stack([found.shares(canvas), found.light(canvas)])


def phase(scan: ScanDataset) -> np.ndarray:
    assert scan.object_guess is not None
    obj = scan.object_guess * np.exp(0.3j * np.sin(np.arange(scan.object_guess.shape[1]) / 9)).astype(np.complex64)
    found = slow_phase(Patterns(scan), ScanModel(probe_of(scan), scan.positions), Canvas(obj, Frame(obj.shape)))
    assert found is not None
    return found


def verdict(scan: ScanDataset) -> np.ndarray:
    found = judge(Evidence(scan, probe_of(scan), 0.2))
    return np.array([found.flat_residual, found.mean_residual, found.noise_residual])


LOOKS: dict[str, Callable[[ScanDataset], object]] = {
    "passes by amplitudes": lambda scan: passes(scan, Likelihood.AMPLITUDE),
    "passes by counts": lambda scan: passes(scan, Likelihood.POISSON),
    "residual": lambda scan: residual(scan, Likelihood.AMPLITUDE),
    "residual of counts": lambda scan: residual(scan, Likelihood.POISSON),
    "slow phase": phase,
    "noise": lambda scan: noise_residual(Patterns(scan)),
    "verdict": verdict,
    "dose": lambda scan: fit_scaling(scan).mean_counts,
    "network's input": lambda scan: Patterns(scan).groups(np.arange(len(scan))[:, None]),
    "fingerprint": fingerprint,
}


@pytest.mark.parametrize("look", list(LOOKS))
def test_what_stands_there_changes_nothing(scan: ScanDataset, masks: np.ndarray, look: str) -> None:
    """[DATA-130] To the bit."""
    one, other = (LOOKS[look](with_garbage(scan, masks, seed)) for seed in (1, 2))
    if isinstance(one, str):
        assert one == other != LOOKS[look](scan)
        return
    for here, there in zip(*((x if isinstance(x, list) else [x]) for x in (one, other)), strict=True):
        assert np.isfinite(here).all()
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("look", [name for name in LOOKS if "passes" in name or "residual" in name or "phase" in name])
def test_values_that_are_bad_in_every_pattern_are_as_bad_pixels(scan: ScanDataset, look: str) -> None:
    """[DATA-130]"""
    bad = np.zeros((N, N), bool)
    bad[18:21] = bad[7, 5:9] = True
    scan = replace(scan, bad_pixels=bad)
    scan = replace(scan, scaling=fit_scaling(scan))
    shared = LOOKS[look](scan)
    each = LOOKS[look](with_garbage(replace(scan, bad_pixels=None), np.broadcast_to(bad, (len(scan), N, N)), 1))
    for here, there in zip(*((x if isinstance(x, list) else [x]) for x in (each, shared)), strict=True):
        np.testing.assert_allclose(here, there, rtol=2e-3, atol=2e-4)


def test_sums_have_what_the_pixel_has_on_average(scan: ScanDataset, masks: np.ndarray) -> None:
    """[DATA-130] A gap in a third of the patterns takes no light from the mean pattern, nor from the dose."""
    data = with_garbage(scan, masks, 1)
    counts = scan.counts(slice(None)).astype(np.float64)
    expected = np.where(masks, 0, counts).sum(axis=0) / np.maximum((~masks).sum(axis=0), 1)
    np.testing.assert_allclose(mean_pattern(data), expected, rtol=1e-4, atol=1e-4)
    assert fit_scaling(data).mean_counts == pytest.approx(counts.sum() / len(scan), rel=0.02)
    np.testing.assert_array_equal(data.counts(slice(3, 9))[~masks[3:9]], scan.counts(slice(3, 9))[~masks[3:9]])


def test_selected_patterns_take_theirs_along(scan: ScanDataset, masks: np.ndarray) -> None:
    """[DATA-003] [DATA-130]"""
    data = with_garbage(scan, masks, 1)
    index = np.array([7, 3, 3, 24])
    part = data.select(index)
    assert part.bad_values is not None
    np.testing.assert_array_equal(part.bad_values.masks(slice(None)), masks[index])
    np.testing.assert_array_equal(part.counts(slice(None)), data.counts(index))
    np.testing.assert_array_equal(part.marked_counts(slice(None)) < 0, masks[index])


@pytest.mark.parametrize("measurement", list(Measurement))
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_device_marks_them_too(scan: ScanDataset, masks: np.ndarray, dtype: str, measurement: Measurement) -> None:
    """[ARR-003] [DATA-130] Kept there, or read for every batch."""
    values = np.minimum(scan.counts(slice(None)), 200).astype(dtype)
    bad = np.zeros((N, N), bool)
    bad[3, 4:9] = True
    values[masks] = 60_000
    data = replace(scan, patterns=values, measurement=measurement, bad_values=BadValues.of_masks(masks))
    data = replace(data, bad_pixels=bad, counts_per_unit=1.7)
    index = np.array([0, 3, 1])
    expected = np.fft.ifftshift(masks[index] & ~bad, axes=(1, 2))
    for budget in (1 << 30, 0):
        library = CountingLibrary(budget)
        here, there = Patterns(data, library), Patterns(data)
        np.testing.assert_allclose(library.to_host(here.counts(index)), there.counts(index), rtol=1e-5, atol=1e-5)
        for patterns in (here, there):
            amplitudes, good = patterns.measured(patterns.amplitudes(index))
            assert good is not None
            good, amplitudes = (patterns.library.to_host(array) for array in (good, amplitudes))
            np.testing.assert_array_equal(good == 0, expected | np.fft.ifftshift(bad))
            assert (amplitudes[expected] == 0).all()
        (_, fetch), (_, plain) = next(here.batches([index])), next(there.batches([index]))
        np.testing.assert_allclose(library.to_host(fetch(slice(None))), plain(slice(None)), rtol=1e-5)


def test_the_record_is_what_the_masks_were(masks: np.ndarray) -> None:
    """[DATA-131]"""
    bad = BadValues.of_masks(masks)
    assert bad is not None
    assert len(bad) == len(masks)
    np.testing.assert_array_equal(bad.masks(slice(None)), masks)
    np.testing.assert_array_equal(bad.times, masks.sum(axis=0))
    np.testing.assert_array_equal(bad.patterns_with_any, np.flatnonzero(masks.any(axis=(1, 2))))
    turned = bad.changed(lambda block: np.flip(block, -1)[:, 4:], (N - 4, N))
    assert turned is not None
    np.testing.assert_array_equal(turned.masks(slice(None)), np.flip(masks, -1)[:, 4:])
    joined = join_bad_values([(3, None), (len(masks), bad)], (N, N))
    assert joined is not None
    np.testing.assert_array_equal(joined.masks(slice(3, None)), masks)
    assert not joined.masks(slice(0, 3)).any()
    other = BadValues.of_masks(np.roll(masks, 1, axis=0))
    both = unite(bad, other)
    assert both is not None
    np.testing.assert_array_equal(both.masks(slice(None)), masks | np.roll(masks, 1, axis=0))
    assert bad.outside(masks.any(axis=0)) is None
    assert BadValues.of_masks(np.zeros_like(masks)) is None


@pytest.mark.parametrize(
    ("offsets", "pixels"),
    [([0, 1], [5]), ([0, 2, 1], [5]), ([1, 1, 1], [5]), ([0, 1, 2], [5]), ([0, 1, 1], [1024]), ([0, 1.0, 1], [5])],
)
def test_a_record_that_contradicts_itself_is_refused(scan: ScanDataset, offsets: list[int], pixels: list[int]) -> None:
    """[DATA-131]"""
    two = replace(scan, object_guess=None).select(np.arange(2))
    with pytest.raises(DataError):
        replace(two, bad_values=BadValues(np.array(offsets), np.array(pixels), (N, N)))
