"""Objects that are worked on in tiles. Requirements: specs/19-arrays.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from array_libraries import CountingLibrary, StrictLibrary
from array_suite.algorithms import SIZE, N, patches_of, predicted, reconstructed, truth

from ptychopinn.arrays import NUMPY, ArrayLibrary, slices_of
from ptychopinn.config import SimulationConfig
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.geometry import Canvas, Frame, Windows
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.monitor import Monitor
from ptychopinn.refinement import Refinement, RefineOptions, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers import epie
from ptychopinn.solvers.engine import PassEngine
from ptychopinn.solvers.options import PassOptions, StepSchedule
from ptychopinn.solvers.slow_phase import slow_phase
from ptychopinn.stitching import Stitcher, coverage_of, patch_weights
from ptychopinn.tiles import PIXEL_BYTES, Tiling, where_object_fits
from ptychopinn.typing import ComplexArray

pytestmark = pytest.mark.slow

BUDGET = PIXEL_BYTES * 75**2  # of a device that holds a quarter of the object


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=22, cols=20, nphotons=1e6, seed=3))


def make_tiling(scan: ScanDataset, frame: Frame, size: int, budget: int = BUDGET) -> Tiling:
    return Tiling(frame, NUMPY, scan.positions, size, StrictLibrary(budget))


def whole(scan: ScanDataset, frame: Frame, size: int) -> Tiling:
    return Tiling(frame, NUMPY, scan.positions, size, NUMPY)


def error(found: ComplexArray, scan: ScanDataset) -> float:
    """|G - R| / |G| inside the box of positions, one complex factor removed."""
    low, high = scan.positions.min(axis=0).astype(int), scan.positions.max(axis=0).astype(int)
    inside = (slice(low[0], high[0]), slice(low[1], high[1]))
    a, b = truth(scan)[inside], found[inside]
    return float(np.linalg.norm(a - b * (np.vdot(b, a) / np.vdot(b, b))) / np.linalg.norm(a))


@pytest.mark.parametrize("budget", [1, BUDGET, BUDGET * 3 // 2])
def test_every_pattern_belongs_to_one_tile_that_holds_its_window(scan: ScanDataset, budget: int) -> None:
    """[ARR-009] Tiles are as large as the budget allows, and two windows wide at the least."""
    frame = Frame.around(scan.positions, N)
    tiling = make_tiling(scan, frame, N, budget)
    assert 1 < len(tiling.tiles) < len(scan) / 2
    members = np.concatenate([tile.members for tile in tiling.tiles])
    np.testing.assert_array_equal(np.sort(members), np.arange(len(scan)))
    for tile in tiling.tiles:
        assert math.prod(tile.frame.shape) <= max(budget // PIXEL_BYTES, (2 * N) ** 2)
        assert Windows.at(scan.positions[tile.members], N, tile.frame).inside
        assert tile.frame.overlap(frame)[0] == tuple(slice(0, length) for length in tile.frame.shape)


def test_patterns_at_one_place_and_none_at_all_have_tiles(scan: ScanDataset) -> None:
    """[ARR-009]"""
    at_one = np.broadcast_to(scan.positions[:1], (50, 2))
    tiling = Tiling(Frame.around(at_one, N), NUMPY, at_one, N, StrictLibrary(1))
    assert [len(tile.members) for tile in tiling.tiles] == [50]
    assert Tiling(Frame((9, 9)), NUMPY, at_one[:0], N, StrictLibrary(1)).tiles == []


def test_an_object_lies_where_there_is_memory_for_it(scan: ScanDataset) -> None:
    """[ARR-004] [ARR-009] On the device, else on the host in tiles, else the device cannot do it."""
    frame = Frame.around(scan.positions, N)
    ample, small, none = (StrictLibrary(budget) for budget in (1 << 30, BUDGET, PIXEL_BYTES * (2 * N) ** 2 - 1))
    assert where_object_fits(frame, N, ample) is ample
    assert where_object_fits(frame, N, small) is NUMPY
    assert where_object_fits(frame, N, none) is None
    assert where_object_fits(frame, N, NUMPY) is NUMPY
    here = Tiling(frame, ample, scan.positions, N, ample)
    assert [tile.frame for tile in here.tiles] == [frame]
    obj = ample.from_host(np.zeros(frame.shape, np.complex64))
    assert here.load(here.tiles[0], obj) is obj
    assert here.store(here.tiles[0], None, obj) is obj


@pytest.mark.parametrize("cropped", [False, True])
def test_coverage_is_the_same_in_tiles(scan: ScanDataset, cropped: bool) -> None:
    """[ARR-009] Also where windows leave the object's frame, or lie outside it."""
    frame = Frame((60, 75), (41, 30)) if cropped else Frame.around(scan.positions, SIZE)
    weights = patch_weights(scan.probe, SIZE)
    tiling = make_tiling(scan, frame, SIZE, PIXEL_BYTES * 40**2)
    assert len(tiling.tiles) > 2
    found, expected = (coverage_of(scan.positions, weights, one) for one in (tiling, whole(scan, frame, SIZE)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("cropped", [False, True])
def test_patches_are_stitched_in_tiles(scan: ScanDataset, cropped: bool) -> None:
    """[ARR-009] [STITCH-003] To rounding, with the same count of those that were dropped."""
    frame = Frame((60, 75), (41, 30)) if cropped else Frame.around(scan.positions, SIZE)
    patches, weights = patches_of(scan), patch_weights(scan.probe, SIZE)
    tiling = make_tiling(scan, frame, SIZE, PIXEL_BYTES * 40**2)
    one, several = Stitcher(weights, frame), Stitcher(weights, frame)
    one.add(patches, scan.positions)
    for tile in tiling.tiles:
        part = Stitcher(weights, tile.frame, tiling.library)
        for block in slices_of(len(tile.members), 10):
            some = tile.members[block]
            part.add(tiling.library.from_host(patches[some]), scan.positions[some])
        several.add_tile(part)
    found, expected = several.take_result(), one.take_result()
    np.testing.assert_allclose(found.coverage, expected.coverage, atol=1e-5)
    np.testing.assert_allclose(found.object, expected.object, atol=1e-4)
    assert (found.placed, found.dropped) == (expected.placed, expected.dropped)
    assert (found.dropped > 0) == cropped


def test_windows_of_an_object_on_the_host_are_cut_there(scan: ScanDataset) -> None:
    """[ARR-009] Residuals and slow phases see the same, and no array as large as the object goes to the device."""
    obj, library = predicted(scan), CountingLibrary(BUDGET)
    canvas = Canvas(obj, Frame(obj.shape))
    for likelihood in Likelihood:
        found, expected = (
            ForwardResidual(
                ScanModel(of.from_host(scan.probe), scan.positions), Patterns(scan, of), likelihood=likelihood
            ).shares(canvas)
            for of in (library, NUMPY)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    found_phase, expected_phase = (
        slow_phase(Patterns(scan, of), ScanModel(of.from_host(scan.probe), scan.positions), canvas)
        for of in (library, NUMPY)
    )
    assert isinstance(found_phase, np.ndarray)
    np.testing.assert_allclose(found_phase, expected_phase, atol=1e-3)
    assert obj.shape not in library.came


def refine_on(scan: ScanDataset, library: ArrayLibrary, on: ArrayLibrary, **changes: Any) -> Refinement:
    obj = predicted(scan)
    start = Canvas(on.from_host(obj), Frame(obj.shape), on)
    return refine(
        Patterns(scan, library),
        ScanModel(library.from_host(scan.probe), scan.positions),
        start,
        RefineOptions(**changes),
    )


@pytest.mark.parametrize("free", [False, True])
def test_a_refinement_in_tiles_is_as_good(scan: ScanDataset, free: bool) -> None:
    """[ARR-009] Patterns come in another order; the residual is that of the whole object to 2%, the error to 10%."""
    changes = {"passes": 3, "update_probe": free, "update_positions": free}
    found = refine_on(scan, StrictLibrary(BUDGET), NUMPY, **changes)
    expected = refine_on(scan, NUMPY, NUMPY, **changes)
    assert isinstance(found.object, np.ndarray)
    assert error(found.object, scan) < 1.1 * error(expected.object, scan)
    assert found.summary.residual_after < 1.02 * expected.summary.residual_after
    assert found.summary.passes_kept == 3
    np.testing.assert_allclose(found.model.positions, expected.model.positions, atol=0.1)


def test_one_tile_is_the_whole_object_to_the_bit(scan: ScanDataset) -> None:
    """[ARR-009] Also where the object is the host's and goes to the device for it."""
    library = StrictLibrary()
    on_device, tile = (refine_on(scan, library, on, passes=2, update_probe=True) for on in (library, NUMPY))
    np.testing.assert_array_equal(library.to_host(on_device.object), tile.object)
    np.testing.assert_array_equal(library.to_host(on_device.model.probe), library.to_host(tile.model.probe))


def test_epie_in_tiles_is_as_good(scan: ScanDataset) -> None:
    """[ARR-009]"""
    found, expected = (epie(Patterns(scan, of), scan.probe, passes=8) for of in (StrictLibrary(BUDGET), NUMPY))
    assert error(found.object, scan) < 1.2 * error(expected.object, scan)
    assert found.residuals[-1] < 1.05 * expected.residuals[-1]


def test_a_cancelled_pass_leaves_what_its_tiles_brought(scan: ScanDataset) -> None:
    """[ARR-009]"""
    frame, library = Frame.around(scan.positions, N), StrictLibrary(BUDGET)
    monitor = Monitor()

    class Stopping(Patterns):
        """Cancels with the third batch."""

        def batches(self, chosen: Any) -> Any:
            for number, batch in enumerate(super().batches(chosen)):
                if number == 2:
                    monitor.cancel()
                yield batch

    start = Canvas(np.ones(frame.shape, np.complex64), frame)
    options = PassOptions(StepSchedule(), batch_size=8)
    engine = PassEngine(
        Stopping(scan, library),
        np.arange(len(scan)),
        ScanModel(library.from_host(scan.probe), scan.positions),
        start,
        options,
    )
    assert engine.run(0, 1, monitor) is None
    changed = engine.canvas.array != 1
    assert 0 < changed.mean() < 0.5


@pytest.mark.parametrize(
    "config",
    [
        {"synchronise": "off"},
        {},
        {"refine": 2, "refine_probe": True},
        {"refine": 1, "predict_overlap": 0.3},
    ],
    ids=str,
)
def test_a_reconstruction_in_tiles(scan: ScanDataset, config: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """[ARR-004] [ARR-009] It is told, and nothing as large as the object is ever on the device."""
    library = CountingLibrary(BUDGET)
    with caplog.at_level("WARNING", logger="ptychopinn"):
        found = reconstructed(scan, library, patterns=False, **config)
    expected = reconstructed(scan, NUMPY, patterns=False, **config)
    height, width = found.object.shape
    assert f"An object of {height} x {width} pixels does not fit in 0 MiB of memory of array_api_strict" in caplog.text
    assert not {found.object.shape, Frame.around(scan.positions, N).shape} & {*library.came, *library.went}
    np.testing.assert_allclose(found.coverage, expected.coverage, atol=1e-4)
    assert (found.placed, found.dropped) == (expected.placed, expected.dropped)
    assert found.residual < 1.05 * expected.residual
    if "refine" not in config:
        np.testing.assert_allclose(found.object, expected.object, atol=1e-3)
