"""How far a reconstruction can be trusted: specs/25-uncertainty.md."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import Cancelled, ConfigError, DataError
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.live.scan import live_config
from ptychopinn.metrics import align, scan_box
from ptychopinn.monitor import Monitor
from ptychopinn.product import product_of, read_product, write_product
from ptychopinn.reconstruction import uncertainty_of
from ptychopinn.refinement import RefineOptions, refine
from ptychopinn.report import ObjectView, uncertainty_picture
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import FloatArray
from ptychopinn.uncertainty import MIN_PATTERNS, ScanResult, Uncertainty, check_uncertainty, estimate_uncertainty
from ptychopinn.workflows import create_solver, solve

N = 64


def simulated(nphotons: float = 1e4, overlap: float = 0.7, seed: int = 5, **settings: object) -> ScanDataset:
    config = {"N": N, "rows": 9, "cols": 9, "nphotons": nphotons, "overlap": overlap, "seed": seed, **settings}
    return simulate_scan(SimulationConfig.model_validate(config))


def solved(scan: ScanDataset, passes: int = 20) -> ScanResult:
    frame = Frame.around(scan.positions, N)
    model = ScanModel(scan.probe, scan.positions)
    found = refine(Patterns(scan), model, Canvas(flat_object(frame), frame), RefineOptions(passes))
    return ScanResult(found.object, frame, model, flat_start=True)


def estimated(scan: ScanDataset, passes: int = 20) -> tuple[ScanResult, Uncertainty]:
    result = solved(scan, passes)
    return result, estimate_uncertainty(Patterns(scan), result)


def phase_errors(scan: ScanDataset, result: ScanResult) -> FloatArray:
    assert scan.object_guess is not None
    whole = np.ones(scan.object_guess.shape, np.complex64)
    Frame(whole.shape).paste(whole, result.object, result.frame)
    aligned = align(scan.object_guess, whole, scan_box(scan.positions, whole.shape), register=False)
    return np.abs(np.angle(aligned.reconstruction * aligned.reference.conj()))


@pytest.fixture(scope="module")
def dim() -> tuple[ScanDataset, ScanResult, Uncertainty]:
    scan = simulated()
    return scan, *estimated(scan)


@pytest.mark.parametrize("nphotons", [1e3, 1e6])
def test_two_thirds_of_the_pixels_are_within_one_standard_error(nphotons: float) -> None:
    """[UNC-001] On one small scan with a wider tolerance; benchmarks/uncertainty.py has the average over scans."""
    scan = simulated(nphotons)
    result, found = estimated(scan)
    scaled = phase_errors(scan, result) / found.phase_error[found.box.slices]
    assert 0.5 < np.mean(scaled < 1) < 0.86
    assert np.mean(scaled < 2) > 0.86


def test_errors_are_unknown_where_no_light_was_and_bounded_elsewhere() -> None:
    """[UNC-002]"""
    scan = simulated(1e3)
    result = solved(scan, 5)
    wide = Frame((result.frame.shape[0] + 40, result.frame.shape[1] + 40), tuple(v - 20 for v in result.frame.origin))
    obj = np.ones(wide.shape, np.complex64)
    wide.paste(obj, result.object, result.frame)
    middle = (slice(obj.shape[0] // 2, obj.shape[0] // 2 + 5), slice(obj.shape[1] // 2, obj.shape[1] // 2 + 5))
    obj[middle] = 0  # of a black pixel no phase is known
    found = estimate_uncertainty(Patterns(scan), replace(result, object=obj, frame=wide))
    assert np.isnan(found.phase_error[:20]).all()
    assert np.isnan(found.amplitude_error[:20]).all()
    assert np.isfinite(found.amplitude_error[found.box.slices]).all()
    most = math.pi / math.sqrt(3)
    np.testing.assert_allclose(found.phase_error[middle], most, rtol=1e-5)
    assert np.nanmax(found.phase_error) <= most * (1 + 1e-6)


@pytest.mark.slow
def test_more_photons_make_errors_smaller_and_the_resolution_finer(
    dim: tuple[ScanDataset, ScanResult, Uncertainty],
) -> None:
    """[UNC-003] [UNC-004]"""
    _, bright = estimated(simulated(1e6))
    assert bright.median_phase_error < 0.4 * dim[2].median_phase_error
    assert bright.median_amplitude_error < 0.4 * dim[2].median_amplitude_error
    assert 1 <= bright.resolution_px < 0.8 * dim[2].resolution_px


def test_errors_are_larger_where_there_is_less_light(dim: tuple[ScanDataset, ScanResult, Uncertainty]) -> None:
    """[UNC-003] Outside the scan box there is less and less."""
    _, _, found = dim
    edge = found.amplitude_error[found.box.y0 - 16 : found.box.y0 - 8, found.box.slices[1]]
    assert np.nanmedian(edge) > 1.3 * found.median_amplitude_error


def test_the_resolution_of_noise_is_coarse() -> None:
    """[UNC-004] Halves that start from the object itself would agree on its finest noise."""
    scan = simulated(300.0, overlap=0.6)
    result = solved(scan, 5)
    noise = np.random.default_rng(0).normal(0, 0.5, result.object.shape)
    noisy = replace(result, object=(result.object * np.exp(1j * noise)).astype(np.complex64))
    assert estimate_uncertainty(Patterns(scan), noisy).resolution_px > 2


def test_the_resolution_is_in_metres_where_the_pixel_is_known(dim: tuple[ScanDataset, ScanResult, Uncertainty]) -> None:
    """[UNC-004]"""
    scan, result, found = dim
    assert found.resolution_m is None
    known = replace(scan, metadata=scan.metadata.model_copy(update={"pixel_size_m": 5e-9}))
    measured = estimate_uncertainty(Patterns(known), result)
    assert measured.resolution_m == pytest.approx(5e-9 * measured.resolution_px)


def test_too_few_patterns_are_refused() -> None:
    """[UNC-005]"""
    scan = simulated()
    with pytest.raises(DataError, match="two halves of the patterns; the scan has 19"):
        check_uncertainty(scan.select(np.arange(MIN_PATTERNS - 1)))


def test_positions_on_a_line_are_refused() -> None:
    """[UNC-005]"""
    scan = simulate_scan(SimulationConfig(N=N, rows=1, cols=30, nphotons=1e4, scan_kind="raster"))
    with pytest.raises(DataError, match="positions over an area"):
        check_uncertainty(scan)


def test_errors_need_passes_and_a_whole_scan() -> None:
    """[UNC-005]"""
    with pytest.raises(ValidationError, match="uncertainty has no effect without refine"):
        InferConfig(refine=0, uncertainty=True)
    with pytest.raises(ConfigError, match="whole scans"):
        live_config(InferConfig(refine=2, uncertainty=True))


class _CancelledLater(Monitor):
    """Cancelled after some passes over the halves."""

    passes = 0

    def report(self, stage: str, done: int, total: int, values: object = None) -> None:
        self.passes += stage == "uncertainty"

    @property
    def cancelled(self) -> bool:
        return self.passes >= 3


def test_an_estimate_can_be_cancelled(dim: tuple[ScanDataset, ScanResult, Uncertainty]) -> None:
    """[UNC-005]"""
    scan, result, _ = dim
    with pytest.raises(Cancelled):
        estimate_uncertainty(Patterns(scan), result, monitor=_CancelledLater())


def test_an_estimate_changes_nothing_and_can_be_repeated(dim: tuple[ScanDataset, ScanResult, Uncertainty]) -> None:
    """[UNC-007]"""
    scan, result, found = dim
    before = result.object.copy()
    again = estimate_uncertainty(Patterns(scan), result)
    np.testing.assert_array_equal(result.object, before)
    np.testing.assert_array_equal(again.phase_error, found.phase_error)
    np.testing.assert_array_equal(again.frc.correlation, found.frc.correlation)


def test_a_global_factor_and_a_ramp_are_no_errors(dim: tuple[ScanDataset, ScanResult, Uncertainty]) -> None:
    """[UNC-007] A factor of the object scales the errors of its amplitude only."""
    scan, result, found = dim
    doubled = replace(result, object=2 * result.object, model=replace(result.model, probe=result.model.probe / 2))
    of_double = estimate_uncertainty(Patterns(scan), doubled)
    assert of_double.median_amplitude_error == pytest.approx(2 * found.median_amplitude_error, rel=0.05)
    assert of_double.median_phase_error == pytest.approx(found.median_phase_error, rel=0.05)


@pytest.mark.slow
def test_the_errors_of_a_solver_are_estimated_with_its_flux_and_background() -> None:
    """[UNC-008] A background that the estimate does not know of disturbs both halves."""
    scan = simulated(1e5, background_share=0.2)
    found = solve(create_solver("rpie", {"passes": 10}), scan)
    without = uncertainty_of(scan, found, flat_start=True)
    share = 0.2 / 1.2 * float(scan.counts(np.arange(len(scan))).mean())
    known = replace(found, background=np.full((N, N), share, np.float32), flux=np.ones(len(scan), np.float32))
    aware = uncertainty_of(scan, known, flat_start=True)
    assert not np.allclose(aware.phase_error, without.phase_error, rtol=0.01, equal_nan=True)
    darker = replace(known, flux=np.full(len(scan), 0.5, np.float32))
    assert not np.allclose(
        uncertainty_of(scan, darker, flat_start=True).phase_error, aware.phase_error, rtol=0.01, equal_nan=True
    )


def test_a_picture_shows_errors_and_correlation(dim: tuple[ScanDataset, ScanResult, Uncertainty]) -> None:
    """[UNC-006] Also where nothing is known."""
    _, _, found = dim
    nothing = replace(found, phase_error=np.full_like(found.phase_error, np.nan), resolution_m=4e-9)
    pictures = {uncertainty_picture(one, ObjectView(one.box)) for one in (found, nothing)}
    assert len(pictures) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_errors_in_a_product_are_read_unchanged(
    dim: tuple[ScanDataset, ScanResult, Uncertainty], tmp_path: Path
) -> None:
    """[PROD-001] [UNC-006] Where they are not known, too."""
    scan, result, found = dim
    product = replace(
        product_of(scan, result.object, scan.probe, origin=result.frame.origin),
        phase_error=found.phase_error,
        amplitude_error=found.amplitude_error,
        frc=np.stack([found.frc.frequency, found.frc.correlation], axis=1),
    )
    write_product(tmp_path / "product.h5", product)
    read = read_product(tmp_path / "product.h5")
    for name in ("phase_error", "amplitude_error", "frc"):
        np.testing.assert_array_equal(getattr(read, name), getattr(product, name))
    with pytest.raises(DataError, match="phase_error has the shape"):
        replace(product, phase_error=found.phase_error[1:])
