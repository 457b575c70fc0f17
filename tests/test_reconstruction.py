"""From a reconstructor and a scan to a judged object: specs/04-stitching.md."""

from __future__ import annotations

import logging
import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy_backend import NumpyOptions, NumpyReconstructor

from ptychopinn.assembly import PhaseRule, Synchronisation
from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import Cancelled, DataError, PluginError, ResourceError
from ptychopinn.metrics import scan_box
from ptychopinn.metrics.quality import FLATNESS_LIMIT, flatness, forward_residual
from ptychopinn.monitor import NULL_MONITOR, Monitor, Progress
from ptychopinn.reconstruction import Reconstruction, reconstruct
from ptychopinn.reconstructor import PatchBatch, Prediction, Reconstructor
from ptychopinn.simulate import simulate_probe, simulate_scan, true_patches
from ptychopinn.stitching import COVERED
from ptychopinn.system import allocate
from ptychopinn.typing import ComplexArray

N, SIZE = 32, 16
ALONE = InferConfig(refine=0)  # the network alone: passes have tests of their own


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=6, cols=6, seed=1))


@pytest.fixture(scope="module")
def trained(scan: ScanDataset) -> NumpyReconstructor:
    reconstructor = NumpyReconstructor(ModelConfig(N=N))
    reconstructor.train(scan, TrainConfig(nepochs=6))
    return reconstructor


class Oracle:
    """Predicts given patches."""

    model = ModelConfig(N=N)

    def __init__(self, patches: ComplexArray, probe: ComplexArray | None = None) -> None:
        self.patches, self.probe = patches.astype(np.complex64), probe

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        def batches() -> Iterator[PatchBatch]:
            order = np.random.default_rng(0).permutation(len(data))  # any order is allowed
            step = config.batch_size(data.N**2)
            for start in range(0, len(data), step):
                indices = order[start : start + step]
                yield PatchBatch(indices, self.patches[indices])

        probe = data.probe if self.probe is None else self.probe
        return Prediction(probe, self.patches.shape[-1], batches())


def by_oracle(scan: ScanDataset, patches: ComplexArray, **config: Any) -> Reconstruction:
    oracle: Any = Oracle(patches)
    return reconstruct(oracle, scan, InferConfig(refine=0, **config))


def turned_patches(scan: ScanDataset, spread_rad: float) -> ComplexArray:
    assert scan.object_guess is not None
    turn = np.exp(1j * np.random.default_rng(5).uniform(-spread_rad, spread_rad, len(scan)))
    return true_patches(scan.object_guess, scan.positions, SIZE) * turn[:, None, None]


def error_inside(found: Reconstruction, scan: ScanDataset) -> float:
    """Relative error inside the scan box after one phase."""
    assert scan.object_guess is not None
    assert found.object.shape == scan.object_guess.shape
    box = scan_box(scan.positions, found.object.shape).slices
    a, b = found.object[box], scan.object_guess[box]
    return float(np.linalg.norm(a * np.exp(1j * np.angle(np.vdot(a, b))) - b) / np.linalg.norm(b))


def test_the_test_backend_is_a_reconstructor(trained: NumpyReconstructor) -> None:
    assert isinstance(trained, Reconstructor)


def test_a_trained_reconstructor_gives_the_object(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[RECON-003] with its residual and its flatness, and what was placed."""
    found = reconstruct(trained, scan, ALONE)
    assert error_inside(found, scan) < 0.2
    assert (found.placed, found.dropped, found.warnings) == (36, 0, ())
    assert found.object.dtype == np.complex64
    assert found.residual == pytest.approx(forward_residual(found.object, (0, 0), found.probe, scan))
    assert 0 < found.residual < 0.05
    assert found.flatness == flatness(found.object, scan_box(scan.positions, found.object.shape))
    assert found.flatness > FLATNESS_LIMIT
    assert set(found.seconds) == {"predict", "synchronise", "stitch", "slow phase", "judge"}


def test_a_wide_probe_off_its_centre() -> None:
    """[SYNC-001] Its bright part is 59 pixels wide, of which every second is looked at."""
    probe = np.roll(simulate_probe("gaussian", 128, photons=1e6), 1, axis=2)
    scan = simulate_scan(SimulationConfig(N=128, rows=3, cols=3, step_px=12, seed=1), probe=probe)
    assert scan.object_guess is not None
    turn = np.exp(1j * np.random.default_rng(5).uniform(-3, 3, len(scan)))
    patches = true_patches(scan.object_guess, scan.positions, 64) * turn[:, None, None]
    assert error_inside(by_oracle(scan, patches, synchronise="on"), scan) < 0.03


def test_scans_of_a_file_are_one_object(scan: ScanDataset, caplog: pytest.LogCaptureFixture) -> None:
    """[RECON-005] [DATA-065] Two scans of one sample, every second pattern of each: they overlap, and that is told."""
    patches = turned_patches(scan, 3.0)
    with caplog.at_level(logging.INFO, logger="ptychopinn"):
        one = by_oracle(scan, patches)
        assert "scan_index" not in caplog.text
        two = by_oracle(replace(scan, scan_index=np.arange(36) % 2), patches)
    assert [r.getMessage() for r in caplog.records if "scan_index" in r.getMessage()] == [
        f"The 2 scans of '{scan.name}' (scan_index) are reconstructed as one object: their positions have one frame."
    ]
    np.testing.assert_array_equal(one.object, two.object)


def test_without_an_object_the_frame_is_the_box_of_patches(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STITCH-005] and [STITCH-004]: what no pattern covers is 1 + 0j."""
    bare = reconstruct(trained, replace(scan, object_guess=None), ALONE)
    full = reconstruct(trained, scan, ALONE)
    (height, width), (top, left) = bare.frame.shape, bare.frame.origin
    assert full.object.shape != bare.object.shape == (height, width)
    np.testing.assert_allclose(bare.object, full.object[top : top + height, left : left + width], atol=1e-6)
    uncovered = full.coverage <= COVERED
    assert uncovered[0, 0]
    assert not uncovered[full.object.shape[0] // 2, full.object.shape[1] // 2]
    assert set(full.object[uncovered]) == {1 + 0j}


@pytest.mark.parametrize("count", [1, 4, 5, 6])
@pytest.mark.parametrize("synchronise", ["off", "auto"])
def test_any_number_of_patterns_is_placed(
    scan: ScanDataset, trained: NumpyReconstructor, count: int, synchronise: str
) -> None:
    """[RECON-001] 1, batch - 1, batch and batch + 1 patterns; one alone has no scan box and no flatness."""
    part = scan.select(np.arange(count))
    found = reconstruct(trained, part, InferConfig(inference_batch_size=5, synchronise=synchronise, refine=0))
    assert (found.placed, found.dropped) == (count, 0)
    assert np.isfinite(found.object).all()
    assert math.isnan(found.flatness)


def test_an_empty_scan_is_refused(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[RECON-001]"""
    with pytest.raises(DataError, match="no patterns"):
        reconstruct(trained, scan.select(np.zeros(0, np.int64)))


@pytest.mark.parametrize("synchronise", ["off", "on", "auto"])
@pytest.mark.parametrize("batch", [1, 7, 36, 100])
def test_the_batch_size_does_not_matter(
    scan: ScanDataset, trained: NumpyReconstructor, synchronise: str, batch: int
) -> None:
    """[RECON-001]"""
    one = reconstruct(trained, scan, InferConfig(synchronise=synchronise, refine=0))
    other = reconstruct(trained, scan, InferConfig(synchronise=synchronise, inference_batch_size=batch, refine=0))
    np.testing.assert_allclose(other.object, one.object, atol=1e-5)
    np.testing.assert_allclose(other.coverage, one.coverage, atol=1e-6)


def test_a_batch_too_large_is_halved(
    scan: ScanDataset, trained: NumpyReconstructor, caplog: pytest.LogCaptureFixture
) -> None:
    """[RECON-002]"""
    small = NumpyReconstructor(ModelConfig(N=N), NumpyOptions(patterns_that_fit=5))
    small._model = trained._model
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        found = reconstruct(small, scan, ALONE)
    np.testing.assert_allclose(found.object, reconstruct(trained, scan, ALONE).object, atol=1e-5)
    assert "continuing with 4" in caplog.text
    none = NumpyReconstructor(ModelConfig(N=N), NumpyOptions(patterns_that_fit=0))
    none._model = trained._model
    with pytest.raises(ResourceError, match="even one pattern"):
        reconstruct(none, scan)


def test_true_patches_with_random_phases_give_the_object(scan: ScanDataset) -> None:
    """[SYNC-005] on solves them, off does not, auto takes what explains the patterns best and says so."""
    patches = turned_patches(scan, np.pi)
    on, off, auto = (by_oracle(scan, patches, synchronise=s) for s in ("on", "off", "auto"))
    assert [found.synchronised for found in (on, off)] == [
        Synchronisation(PhaseRule.ON),
        Synchronisation(PhaseRule.OFF),
    ]
    assert [str(found.synchronised) for found in (on, off)] == ["on", "off"]
    assert auto.synchronised.rule is PhaseRule.ON
    assert error_inside(on, scan) < 0.03 < 0.5 < error_inside(off, scan)
    assert on.residual < 0.05 < off.residual
    assert auto.residual <= 1.000001 * on.residual
    assert error_inside(auto, scan) < 0.03


def test_auto_leaves_phases_that_are_right(scan: ScanDataset) -> None:
    """[SYNC-005] Patches with the same small ramp each: solved phases would add it up over the whole object."""
    ramp = np.exp(0.1j * (np.arange(SIZE) - (SIZE - 1) / 2))
    patches = turned_patches(scan, 0) * ramp
    on, off, auto = (by_oracle(scan, patches, synchronise=s) for s in ("on", "off", "auto"))
    assert auto.residual < 1.001 * off.residual < 0.9 * on.residual
    assert auto.synchronised.rule in (PhaseRule.OFF, PhaseRule.TETHERED)
    assert str(PhaseRule.TETHERED) == "tethered by 0.1"


def test_auto_takes_off_the_slow_phase_of_a_drift(scan: ScanDataset) -> None:
    """[SYNC-005] Patches that drift by a smooth error: overlaps agree with it, patterns do not."""
    patches = turned_patches(scan, 0)
    centred = scan.positions - scan.positions.mean(axis=0)
    bend = 0.002 * centred  # gradient of 0.001 |r|^2, which every patch has its own part of
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    ramps = np.exp(1j * (bend[:, 0, None, None] * axis[:, None] + bend[:, 1, None, None] * axis))
    drifted = (patches * ramps).astype(np.complex64)
    on, auto = (by_oracle(scan, drifted, synchronise=s) for s in ("on", "auto"))
    assert auto.synchronised.slow_phase_solved
    assert str(auto.synchronised).endswith("slow phase solved")
    assert error_inside(auto, scan) < 0.5 * error_inside(on, scan)


@pytest.mark.parametrize("most", [0.0, np.pi])
def test_candidates_are_stitched_one_by_one_where_objects_are_large(
    scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, most: float
) -> None:
    """[RECON-004] with the same object, coverage and count."""
    patches = turned_patches(scan, most)
    together = by_oracle(scan, patches, synchronise="auto")
    monkeypatch.setattr("ptychopinn.assembly._SMALL_OBJECT", 0)
    apart = by_oracle(scan, patches, synchronise="auto")
    assert (together.synchronised, together.placed) == (apart.synchronised, apart.placed)
    assert together.residual == apart.residual
    np.testing.assert_array_equal(together.object, apart.object)
    np.testing.assert_array_equal(together.coverage, apart.coverage)


def test_patches_wait_in_a_scratch_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """[SYNC-006] the same result, and no array of all patches in memory."""
    scan = simulate_scan(SimulationConfig(N=64, rows=12, cols=12, seed=1, step_px=3))
    assert scan.object_guess is not None
    patches = true_patches(scan.object_guess, scan.positions, 32)
    assert 1 << 20 < patches.nbytes < 2 << 20
    made: list[int] = []
    monkeypatch.setattr("ptychopinn.spill.allocate", lambda file, size: made.append(size) or allocate(file, size))
    inside = by_oracle(scan, patches, memory_budget_mb=2)
    assert made == []
    outside = by_oracle(scan, patches, memory_budget_mb=1)
    assert made == [patches.nbytes]
    np.testing.assert_array_equal(outside.object, inside.object)
    np.testing.assert_array_equal(outside.coverage, inside.coverage)


def test_a_full_disk_is_told_before_it_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """[SYNC-006]"""

    def full(*args: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ptychopinn.spill.allocate", full)
    scan = simulate_scan(SimulationConfig(N=64, rows=12, cols=12, seed=1, step_px=3))
    with pytest.raises(ResourceError, match=r"temporary file of 1,179,648 bytes .* No space left .* TMPDIR"):
        by_oracle(scan, np.ones((144, 32, 32)), memory_budget_mb=1)


@pytest.mark.parametrize(("deviation", "warned"), [(0.0, True), (0.015, True), (0.05, False)])
def test_a_flat_object_is_warned_about(
    scan: ScanDataset, caplog: pytest.LogCaptureFixture, deviation: float, warned: bool
) -> None:
    """[RECON-003] below a deviation of 0.02 inside the scan box; noted in the result and in the log."""
    shape = scan.object_guess.shape  # type: ignore[union-attr]
    stripes = 1 + deviation * np.where(np.arange(shape[1]) // 4 % 2, 1j, -1j) * np.ones(shape)
    patches = true_patches(stripes.astype(np.complex64), scan.positions, SIZE)
    with caplog.at_level(logging.WARNING, logger="ptychopinn"):
        found = by_oracle(scan, patches, synchronise="off")
    assert found.flatness == pytest.approx(deviation, abs=0.3 * deviation + 1e-6)
    assert [w for w in found.warnings if w.startswith("The object is flat")] == list(found.warnings[1:]) * warned
    assert len(found.warnings) == 1 + warned
    assert found.warnings[0].startswith("This reconstruction does not explain the data")
    assert ("The object is flat" in caplog.text) is warned


def test_patterns_outside_the_frame_are_counted(scan: ScanDataset, trained: NumpyReconstructor) -> None:
    """[STITCH-004] the numbers of patches placed and dropped are part of the result."""
    moved = scan.positions.copy()
    moved[:3] += 1000
    found = reconstruct(trained, replace(scan, positions=moved), ALONE)
    assert (found.placed, found.dropped) == (33, 3)
    assert any("3 of 36 patches lie outside the frame" in warning for warning in found.warnings)


@pytest.mark.parametrize("synchronise", ["off", "auto"])
def test_progress_and_cancellation(scan: ScanDataset, trained: NumpyReconstructor, synchronise: str) -> None:
    """[REC-009] A cancelled inference has no result worth keeping."""
    seen: list[Progress] = []
    config = InferConfig(inference_batch_size=9, synchronise=synchronise, refine=0)
    reconstruct(trained, scan, config, monitor=Monitor(seen.append))
    stages = list(dict.fromkeys(p.stage for p in seen))
    expected = {"off": ["predict"], "on": ["predict", "synchronise", "stitch"]}
    assert stages == expected.get(synchronise, [*expected["on"], "slow phase"])
    for stage in stages:
        last = [p for p in seen if p.stage == stage][-1]
        assert last.done == last.total > 0
    monitor = Monitor(lambda progress: monitor.cancel() if progress.done >= 9 else None)
    with pytest.raises(Cancelled, match="after 9 of 36 patterns"):
        reconstruct(trained, scan, config, monitor=monitor)


def test_memory_does_not_grow_with_the_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """[RECON-004] Three times the patterns over the same object, patches in a scratch file."""
    monkeypatch.setattr("ptychopinn.synchronise._TILE_VALUES", 1 << 14)  # a tile is a part of so small a scan, too

    def peak_mib(side: int) -> float:
        scan = simulate_scan(SimulationConfig(N=64, rows=side, cols=side, seed=1, step_px=96 / side))
        assert scan.object_guess is not None
        truth = scan.object_guess

        class Lazy(Oracle):
            def __init__(self) -> None:
                self.probe = scan.probe

            def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
                def batches() -> Iterator[PatchBatch]:
                    for start in range(0, len(data), 64):
                        indices = np.arange(start, min(start + 64, len(data)))
                        yield PatchBatch(indices, true_patches(truth, data.positions[indices], 32))

                return Prediction(self.probe, 32, batches())

        lazy: Any = Lazy()
        tracemalloc.start()
        reconstruct(lazy, scan, InferConfig(memory_budget_mb=1, synchronise="on", refine=0))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / 2**20

    few, many = peak_mib(17), peak_mib(32)
    assert many < few + 3  # 735 more patches alone would be 5.7 MiB


@pytest.mark.parametrize("synchronise", ["auto", "off"])
@pytest.mark.parametrize(
    ("chosen", "words"), [(slice(1, None), "35 of 36 patterns, 0 of"), ([*range(36), 4], "36 of 36 patterns, 1 of")]
)
def test_a_backend_that_does_not_predict_each_pattern_once_is_refused(
    scan: ScanDataset, synchronise: str, chosen: Any, words: str
) -> None:
    """[RECON-001] What nobody predicted would else be whatever stood in memory."""
    patches = turned_patches(scan, 0.0).astype(np.complex64)

    class Careless(Oracle):
        def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
            indices = np.arange(len(data))[chosen]
            return Prediction(data.probe, SIZE, iter([PatchBatch(indices, patches[indices])]))

    careless: Any = Careless(patches)
    with pytest.raises(PluginError, match=words):
        reconstruct(careless, scan, InferConfig(synchronise=synchronise, refine=0))
