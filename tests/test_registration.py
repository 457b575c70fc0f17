"""Positions from a network's patches. Requirements: specs/13-refinement.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.ground_truth import true_patches
from ptychopinn.errors import Cancelled, PluginError
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstruction import reconstruct
from ptychopinn.reconstructor import PatchBatch, Prediction
from ptychopinn.registration import LocatedScan, locate, register_patches
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import ComplexArray, FloatArray

N, SIZE = 64, 32


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    config = SimulationConfig(N=N, rows=11, cols=11, step_px=4.0, nphotons=1e6, object_kind="mixture", seed=11)
    return simulate_scan(config)


@pytest.fixture(scope="module")
def patches(scan: ScanDataset) -> ComplexArray:
    """What a network sees: wherever the stage was, each with a phase of its own, and with errors."""
    assert scan.object_guess is not None
    rng = np.random.default_rng(1)
    seen = true_patches(scan.object_guess, scan.positions, SIZE)
    seen *= np.exp(2j * np.pi * rng.random((len(seen), 1, 1)))
    noise = rng.normal(size=(2, *seen.shape)) * 0.05
    return (seen + noise[0] + 1j * noise[1]).astype(np.complex64)


def predicted(scan: ScanDataset, patches: ComplexArray) -> Prediction:
    return Prediction(scan.probe, SIZE, iter([PatchBatch(np.arange(len(scan)), patches)]))


def away(positions: FloatArray, scan: ScanDataset) -> float:
    """Root mean square distance from the truth, pixels, beside a shift of all."""
    off = positions - scan.positions
    return float(np.sqrt(((off - off.mean(axis=0)) ** 2).sum(axis=1).mean()))


def jittered(positions: FloatArray) -> FloatArray:
    return positions + np.random.default_rng(2).normal(0, 5.0, positions.shape)


def scaled(positions: FloatArray) -> FloatArray:
    return positions + 0.3 * (positions - positions.mean(axis=0))


def turned(positions: FloatArray) -> FloatArray:
    middle = positions.mean(axis=0)
    return middle + (positions - middle) @ np.array([[0.9, 0.4], [-0.4, 0.9]])


def drifting(positions: FloatArray) -> FloatArray:
    return positions + np.linspace(0, 1, len(positions))[:, None] ** 2 * np.array([12.0, -16.0])


ERRORS = [jittered, scaled, turned, drifting]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ERRORS)
def test_positions_are_located(
    scan: ScanDataset, patches: ComplexArray, wrong: Callable[[FloatArray], FloatArray]
) -> None:
    """[REFINE-017]"""
    given = replace(scan, positions=wrong(scan.positions))
    assert away(given.positions, scan) > 4
    found = locate(predicted(scan, patches), given)
    assert away(found.positions, scan) < 0.3
    assert found.agreement > 0.8
    assert found.residuals is not None
    assert found.residuals[1] < 0.6 * found.residuals[0]
    np.testing.assert_allclose(found.positions.mean(axis=0), given.positions.mean(axis=0), atol=1e-6)
    moves = found.positions - given.positions
    assert found.moved_px == pytest.approx(np.sqrt((moves**2).sum(axis=1).mean()))


def test_registration_alone_is_near(scan: ScanDataset, patches: ComplexArray) -> None:
    """[REFINE-017] within a pixel of most, before any pass."""
    found = register_patches(patches, jittered(scan.positions), scan.probe).positions
    off = found - scan.positions
    assert np.median(np.hypot(*(off - np.median(off, axis=0)).T)) < 1


def test_right_positions_stay_right(scan: ScanDataset, patches: ComplexArray) -> None:
    """[REFINE-018]"""
    assert away(locate(predicted(scan, patches), scan).positions, scan) < 0.1


@pytest.mark.parametrize("kind", ["noise", "the same", "flat"])
def test_patches_that_show_nothing_change_nothing(scan: ScanDataset, patches: ComplexArray, kind: str) -> None:
    """[REFINE-018] whatever the stage was."""
    rng = np.random.default_rng(3)
    bad = {
        "noise": (rng.normal(size=patches.shape) + 1j * rng.normal(size=patches.shape)).astype(np.complex64),
        "the same": np.broadcast_to(patches[:1], patches.shape).copy(),
        "flat": np.ones_like(patches),
    }[kind]
    given = replace(scan, positions=jittered(scan.positions))
    found = locate(predicted(scan, bad), given)
    np.testing.assert_array_equal(found.positions, given.positions)
    assert found.moved_px == 0


def test_a_lost_pattern_is_found_on_the_object(scan: ScanDataset, patches: ComplexArray) -> None:
    """[REFINE-017] though its own overlaps mislead it."""
    given = scan.positions.copy()
    given[60] += [9.0, -11.0]
    found = locate(predicted(scan, patches), replace(scan, positions=given))
    off = found.positions - scan.positions
    assert np.hypot(*(off[60] - off.mean(axis=0))) < 0.5


def test_it_can_be_cancelled(scan: ScanDataset, patches: ComplexArray) -> None:
    """[REFINE-017]"""
    monitor = Monitor()
    monitor.cancel()
    with pytest.raises(Cancelled):
        locate(predicted(scan, patches), scan, monitor=monitor)


class Network:
    """Predicts the same patches, whatever positions it is given."""

    def __init__(self, patches: ComplexArray, model: ModelConfig) -> None:
        self.patches, self.model = patches, model

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        return predicted(data, self.patches[: len(data)])


@pytest.mark.slow
def test_a_reconstruction_locates_first(scan: ScanDataset, patches: ComplexArray) -> None:
    """[REFINE-017] [REFINE-018] where positions are free, and the network sees one pattern at a time."""
    given = replace(scan, positions=jittered(scan.positions), object_guess=None)
    fast: Any = Network(patches, ModelConfig(N=N))
    held = reconstruct(fast, given, InferConfig(refine=4))
    free = reconstruct(fast, given, InferConfig(refine=4, refine_positions=True))
    assert held.located is None
    assert isinstance(free.located, LocatedScan)
    assert away(free.positions, scan) < 0.3
    assert free.residual < 0.5 * held.residual
    groups: Any = Network(patches, ModelConfig(N=N, architecture="cnn", gridsize=2))
    assert reconstruct(groups, given, InferConfig(refine=1, refine_positions=True)).located is None


@pytest.mark.slow
@pytest.mark.parametrize("passes", [0, 2])
@pytest.mark.parametrize("wrong", [jittered, scaled, None])
def test_a_stage_that_is_off_is_told(
    scan: ScanDataset, patches: ComplexArray, wrong: Callable[[FloatArray], FloatArray] | None, passes: int
) -> None:
    """[REFINE-023] where nobody asked for positions, with passes and without; a right stage is not suspected."""
    positions = scan.positions if wrong is None else wrong(scan.positions)
    network: Any = Network(patches, ModelConfig(N=N))
    found = reconstruct(network, replace(scan, positions=positions, object_guess=None), InferConfig(refine=passes))
    # Passes explain a wrong scale so far that patches are not looked at; the verdict finds the scale itself.
    advice = "--scale-positions" if wrong is scaled and passes else "--refine-positions"
    assert any(advice in words for words in found.warnings) == (wrong is not None)


def test_a_long_scan_is_looked_at_first(
    scan: ScanDataset, patches: ComplexArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[REFINE-018] A stage that is right in the middle of a long scan costs no more than that look."""
    monkeypatch.setattr("ptychopinn.reconstruction._CHECKED_PATTERNS", 60)
    sizes = []

    class Counting(Network):
        def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
            sizes.append(len(data))
            at = [int(np.flatnonzero((scan.positions == position).all(axis=1))[0]) for position in data.positions]
            return predicted(data, self.patches[at])

    network: Any = Counting(patches, ModelConfig(N=N))
    found = reconstruct(network, replace(scan, object_guess=None), InferConfig(refine=2, refine_positions=True))
    assert found.located is None
    assert sizes == [60, len(scan)]
    assert away(found.positions, scan) < 0.1


@pytest.mark.parametrize("indices", [[*range(120)], [*range(121), 5]])
def test_a_prediction_that_leaves_a_pattern_out_is_refused(
    scan: ScanDataset, patches: ComplexArray, indices: list[int]
) -> None:
    """[REFINE-017] as everywhere: no position comes from a patch that is not there."""
    batch = PatchBatch(np.array(indices), patches[indices])
    with pytest.raises(PluginError, match="of 121 patterns"):
        locate(Prediction(scan.probe, SIZE, iter([batch])), scan)
