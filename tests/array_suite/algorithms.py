"""Each algorithm of the core gives with any library what it gives with NumPy, to 1e-3 of the amplitude."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary, slices_of
from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.forward import power
from ptychopinn.geometry import Canvas, Frame, Windows, split_positions
from ptychopinn.interpolation import PatchShift, ShiftedProbe, shift_probe
from ptychopinn.metrics.baselines import noise_residual
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.patch_store import HostPatches
from ptychopinn.reconstruction import Reconstruction, reconstruct
from ptychopinn.reconstructor import PatchBatch, Prediction
from ptychopinn.refinement import Refinement, RefineOptions, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan, true_patches
from ptychopinn.solvers import epie
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.solvers.options import PassOptions
from ptychopinn.solvers.slow_phase import multiply_by_phase, slow_phase
from ptychopinn.stitching import ShiftedWeights, Stitcher, coverage_of, patch_weights
from ptychopinn.synchronise import measure_overlaps, solve_phases
from ptychopinn.tiles import Tiling
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray
from ptychopinn.uncertainty import ScanResult, Uncertainty, estimate_uncertainty

N, SIZE = 32, 16


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    """25 noisy patterns of (N, N) with a probe of two modes and 2% of bad pixels."""
    return simulate_scan(
        SimulationConfig(N=N, rows=5, cols=5, nphotons=1e6, seed=3, probe_modes=2, bad_pixel_fraction=0.02)
    )


def truth(scan: ScanDataset) -> ComplexArray:
    """The true object of a simulated scan, (H, W) complex64."""
    assert scan.object_guess is not None
    return scan.object_guess


def predicted(scan: ScanDataset) -> ComplexArray:
    """The truth, blurred and with a slow phase."""
    obj = truth(scan)
    y, x = np.indices(obj.shape) / max(obj.shape)
    blurred = gaussian_filter(obj.real, 1.0) + 1j * gaussian_filter(obj.imag, 1.0)
    result: ComplexArray = (blurred * np.exp(0.4j * np.sin(6 * x + 1) * np.cos(5 * y))).astype(np.complex64)
    return result


def agree(library: ArrayLibrary, found: Array, expected: AnyArray) -> None:
    """To 1e-3 of the amplitude, in the same dtype."""
    here = library.to_host(found)
    assert here.dtype == expected.dtype
    np.testing.assert_allclose(here, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def fractions_of(count: int) -> FloatArray:
    """(count, 2) subpixel parts of positions, from -0.5 to 0.5 px."""
    return np.random.default_rng(1).uniform(-0.5, 0.5, (count, 2))


def patches_of(scan: ScanDataset, seed: int = 2) -> ComplexArray:
    """True patches, each with a phase of its own."""
    turn = np.exp(1j * np.random.default_rng(seed).uniform(-3, 3, len(scan)))
    return (true_patches(predicted(scan), scan.positions, SIZE) * turn[:, None, None]).astype(np.complex64)


def test_patches_are_moved(library: ArrayLibrary, scan: ScanDataset) -> None:
    """[ARR-005] [PHYS-012]"""
    patches, fractions = patches_of(scan), fractions_of(len(scan))
    found = PatchShift(SIZE, library)(library.from_host(patches), library.from_host(fractions))
    agree(library, found, PatchShift(SIZE)(patches, fractions))


def test_probes_are_moved(library: ArrayLibrary, scan: ScanDataset) -> None:
    """[ARR-005] [PHYS-011] By few arrays, and by ramps."""
    probe, fractions = scan.probe.astype(np.complex64), fractions_of(7)
    given = library.from_host(fractions)
    expected = shift_probe(probe, fractions)
    agree(library, ShiftedProbe(library.from_host(probe), library)(given), expected)
    agree(library, shift_probe(library.from_host(probe), given, library), expected)
    agree(library, power(library.from_host(expected), library), power(expected))


def test_windows_are_the_same(library: ArrayLibrary, scan: ScanDataset) -> None:
    """[ARR-005] Cut from one frame and from another, some and all."""
    obj = predicted(scan)
    for frame in (Frame(obj.shape), Frame((30, 25), (5, -4))):
        here, there = (Windows.at(scan.positions, N, frame, of) for of in (library, NUMPY))
        part = obj if frame.shape == obj.shape else np.pad(obj, 40, constant_values=1)[45:75, 36:61]
        agree(library, here.cut(library.from_host(part)), there.cut(part))
        agree(library, here[3:7].cut(library.from_host(part)), there[3:7].cut(part))
        index = np.array([4, 0, 9])
        agree(library, here.take(library.from_host(index)).fractions, there.take(index).fractions)


def test_patches_are_stitched(library: ArrayLibrary, scan: ScanDataset) -> None:
    """[ARR-005] [STITCH-003] In batches, with phases, in a frame that grows."""
    patches, weights = patches_of(scan), patch_weights(scan.probe, SIZE)
    phases = np.exp(1j * np.random.default_rng(4).uniform(-3, 3, len(scan)))
    frame = Frame.around(scan.positions, SIZE)
    wide = Frame((frame.shape[0] + 9, frame.shape[1] + 5), (frame.origin[0] - 4, frame.origin[1] - 2))
    narrow = Frame((frame.shape[0] - 9, frame.shape[1] - 5), frame.origin)
    made = []
    for of in (library, NUMPY):
        stitcher, cropped = Stitcher(weights, frame, of), Stitcher(weights, narrow, of)
        for part in slices_of(len(scan), 10):
            given = of.from_host(patches[part]), scan.positions[part], phases[part]
            stitcher.add(*given)
            cropped.add(*given)
            stitcher.grow(wide)
        known = stitcher.cut(Windows.at(scan.positions[:3], SIZE, wide, of))
        made.append((stitcher.result(), cropped.result(), stitcher.take_result(), *known))
    here, there = made
    for found, expected in zip(here[:3], there[:3], strict=True):
        agree(library, found.object, expected.object)
        agree(library, found.coverage, expected.coverage)
        assert (found.placed, found.dropped) == (expected.placed, expected.dropped)
    agree(library, here[3], there[3])
    np.testing.assert_array_equal(library.to_host(here[4]), there[4])
    agree(
        library,
        coverage_of(scan.positions, weights, Tiling(wide, library, scan.positions, SIZE, library)),
        library.to_host(here[0].coverage),
    )
    fractions = fractions_of(6)
    found = ShiftedWeights(weights, library).at(library.from_host(fractions))
    agree(library, found, ShiftedWeights(weights).at(fractions))


@pytest.mark.parametrize("size", [SIZE, 64])
@pytest.mark.parametrize("tether", [0.0, 0.1])
def test_phases_are_solved(library: ArrayLibrary, size: int, tether: float) -> None:
    """[ARR-005] [SYNC-001] Of small patches, and of wide ones, of which every second pixel is looked at."""
    rng = np.random.default_rng(5)
    positions = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2) * size / 4 + size
    turn = np.exp(1j * rng.uniform(-3, 3, len(positions)))
    obj = (np.exp(0.5j * gaussian_filter(rng.standard_normal((3 * size, 3 * size)), 2))).astype(np.complex64)
    patches = (true_patches(obj, positions, size) * turn[:, None, None]).astype(np.complex64)
    corners, _ = split_positions(positions, size)
    smooth = np.exp(-(((np.arange(size) - (size - 1) / 2) / (size / 3)) ** 2))
    weights = np.outer(smooth, smooth).astype(np.float32)
    here, there = (measure_overlaps(HostPatches(patches, of), corners, weights, of) for of in (library, NUMPY))
    np.testing.assert_allclose(
        here.matrix.toarray(), there.matrix.toarray(), rtol=0, atol=1e-3 * np.abs(there.matrix).max()
    )
    np.testing.assert_array_equal(here.components, there.components)
    agree(NUMPY, here.means, there.means)
    found, expected = (solve_phases(there, tether=tether, library=of) for of in (library, NUMPY))
    agree(NUMPY, found, expected)


@pytest.mark.parametrize("likelihood", list(Likelihood))
def test_residuals_are_the_same(library: ArrayLibrary, scan: ScanDataset, likelihood: Likelihood) -> None:
    """[ARR-005] [MET-012] [MET-013]"""
    obj = predicted(scan)
    found, expected = (
        ForwardResidual(
            ScanModel(of.from_host(scan.probe), scan.positions), Patterns(scan, of), likelihood=likelihood
        ).shares(Canvas(of.from_host(obj), Frame(obj.shape, (2, -3)), of))
        for of in (library, NUMPY)
    )
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert noise_residual(Patterns(scan, library)) == pytest.approx(noise_residual(Patterns(scan)), rel=1e-3)


@pytest.mark.parametrize("photons", [1e3, 1e6])
def test_slow_phases_are_the_same(library: ArrayLibrary, scan: ScanDataset, photons: float) -> None:
    """[ARR-005] [REFINE-010] From all pixels and from a quarter of them."""
    lit = replace(scan, probe=(scan.probe * np.sqrt(photons / 1e6)).astype(np.complex64))
    obj = predicted(scan)

    def solved(of: ArrayLibrary) -> tuple[Array, Array]:
        probe, here = of.from_host(lit.probe), of.from_host(obj.copy())
        phase = slow_phase(Patterns(lit, of), ScanModel(probe, lit.positions), Canvas(here, Frame(obj.shape), of))
        assert phase is not None
        seen = of.from_host(np.abs(np.arange(obj.size).reshape(obj.shape)) % 3 > 0)
        return phase, multiply_by_phase(here, phase, of, where=seen, sign=-1.0)

    for found, expected in zip(solved(library), solved(NUMPY), strict=True):
        agree(library, found, expected)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("likelihood", list(Likelihood))
def test_epie_is_the_same(library: ArrayLibrary, scan: ScanDataset, free: bool, likelihood: Likelihood) -> None:
    """[ARR-005] [PHYS-030] The object alone, and the probe too."""
    options = PassOptions(rpie_schedule(3), update_probe=free, likelihood=likelihood)
    start = Canvas(predicted(scan), Frame(truth(scan).shape))
    found, expected = (
        epie(Patterns(scan, of), scan.probe, passes=3, options=options, start=start) for of in (library, NUMPY)
    )
    agree(NUMPY, found.object, expected.object)
    agree(NUMPY, found.probe, expected.probe)
    assert found.residuals == pytest.approx(expected.residuals, rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        RefineOptions(2),
        RefineOptions(2, update_probe=True, update_positions=True),
        RefineOptions(2, update_probe=True, update_variation=2),
        RefineOptions(2, likelihood=Likelihood.POISSON),
    ],
    ids=["object", "probe and positions", "varying probe", "Poisson"],
)
@pytest.mark.parametrize("part", [False, True])
def test_refinements_are_the_same(library: ArrayLibrary, scan: ScanDataset, options: RefineOptions, part: bool) -> None:
    """[ARR-005] [REFINE-001] Of all pixels and of a part of them."""
    start, frame = predicted(scan), Frame(truth(scan).shape)
    whole = Tiling(frame, NUMPY, scan.positions, SIZE, NUMPY)
    covered = coverage_of(scan.positions, patch_weights(scan.probe, SIZE), whole) > 1e-3

    def run(of: ArrayLibrary) -> Refinement:
        seen = of.from_host(covered) if part else None
        canvas = Canvas(of.from_host(start.copy()), frame, of, seen)
        return refine(Patterns(scan, of), ScanModel(of.from_host(scan.probe), scan.positions), canvas, options)

    found, expected = run(library), run(NUMPY)
    agree(library, found.object, expected.object)
    agree(library, found.model.probe, expected.model.probe)
    np.testing.assert_allclose(found.model.positions, expected.model.positions, atol=1e-3)
    assert found.summary.residual_after == pytest.approx(expected.summary.residual_after, rel=1e-3)
    assert found.summary.passes_kept == expected.summary.passes_kept == 2


def test_standard_errors_are_the_same(library: ArrayLibrary) -> None:
    """[ARR-005] [UNC-007]"""
    scan = simulate_scan(SimulationConfig(N=N, rows=5, cols=5, step_px=6, nphotons=1e6, seed=3))
    frame = Frame(truth(scan).shape)

    def run(of: ArrayLibrary) -> Uncertainty:
        background = of.from_host(np.full((N, N), 0.01, np.float32))
        model = ScanModel(of.from_host(scan.probe), scan.positions, np.ones(len(scan), np.float32), background)
        return estimate_uncertainty(Patterns(scan, of), ScanResult(predicted(scan), frame, model))

    found, expected = run(library), run(NUMPY)
    for name in ("phase_error", "amplitude_error"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0.02)
    assert found.resolution_px == pytest.approx(expected.resolution_px, rel=0.02)


class Oracle:
    """Predicts the patches of a scan, in arrays of a library."""

    model = ModelConfig(N=N)

    def __init__(self, scan: ScanDataset, library: ArrayLibrary, *, hands_over_patterns: bool) -> None:
        self.patches = {tuple(at): patch for at, patch in zip(scan.positions, patches_of(scan), strict=True)}
        self.library, self.hands_over_patterns = library, hands_over_patterns

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        """Give the patches in batches of eight, (8, N/2, N/2), as arrays of the library."""
        library = self.library

        def batches() -> Iterator[PatchBatch]:
            for part in slices_of(len(data), 8):
                indices = np.arange(part.start, part.stop)
                patches = np.stack([self.patches[tuple(at)] for at in data.positions[part]])
                yield PatchBatch(indices, library.from_host(patches))

        patterns = Patterns(data, library) if self.hands_over_patterns else None
        return Prediction(library.from_host(data.probe), SIZE, batches(), library, patterns)


def reconstructed(scan: ScanDataset, library: ArrayLibrary, *, patterns: bool, **config: Any) -> Reconstruction:
    """A reconstruction from the patches of an `Oracle`, without passes unless they are asked for."""
    oracle: Any = Oracle(scan, library, hands_over_patterns=patterns)
    return reconstruct(oracle, scan, InferConfig(**{"refine": 0, **config}))


@pytest.mark.parametrize(
    "config",
    [
        {"synchronise": "off"},
        {"synchronise": "on"},
        {},
        {"refine": 2, "refine_probe": True, "refine_positions": True},
        {"refine": 1, "predict_overlap": 0.3},
    ],
    ids=lambda config: " ".join(map(str, config)) or "auto",
)
@pytest.mark.parametrize("patterns", [False, True])
def test_reconstructions_are_the_same(
    library: ArrayLibrary, scan: ScanDataset, config: dict[str, Any], patterns: bool
) -> None:
    """[ARR-002] [ARR-005] From a prediction that names its library, with its patterns and without."""
    found, expected = (reconstructed(scan, of, patterns=patterns, **config) for of in (library, NUMPY))
    for name in ("object", "coverage", "probe", "positions"):
        assert isinstance(getattr(found, name), np.ndarray)
        agree(NUMPY, getattr(found, name), getattr(expected, name))
    assert found.residual == pytest.approx(expected.residual, rel=1e-3)
    assert found.flatness == pytest.approx(expected.flatness, rel=1e-3)
    assert (found.synchronised, found.placed, found.dropped) == (
        expected.synchronised,
        expected.placed,
        expected.dropped,
    )
