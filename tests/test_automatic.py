"""Reconstructions that decide by themselves. Requirements: specs/22-reconstruct.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ptychopinn.arrays import NUMPY
from ptychopinn.automatic import MIN_PATTERNS, reconstruct_automatically
from ptychopinn.config import SimulationConfig
from ptychopinn.config.automatic import AutomaticConfig, Freedom
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import DataError
from ptychopinn.geometry import Canvas
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_probe, simulate_scan

pytestmark = pytest.mark.slow


def simulated(**changes: object) -> ScanDataset:
    """144 patterns of 32 x 32 that overlap."""
    settings = {"N": 32, "rows": 12, "cols": 12, "step_px": 3.0, "nphotons": 1e6, "seed": 1, **changes}
    return simulate_scan(SimulationConfig(**settings))


def error_of(found: Reconstruction, scan: ScanDataset) -> float:
    """Error of the object inside the scan box."""
    assert scan.object_guess is not None
    box = scan_box(scan.positions, scan.object_guess.shape)
    return float(score(align(scan.object_guess, found.object, box))["nrmse"])


def test_a_good_scan_needs_no_freedom() -> None:
    """[AUTO-001] [AUTO-002] [AUTO-003] From flat, with nothing freed, until passes no longer pay."""
    scan = simulated()
    found = reconstruct_automatically(scan, None)
    assert found.freed == frozenset()
    assert error_of(found.reconstruction, scan) < 0.05
    assert "flat object" in found.story[0]
    assert "changed little" in found.story[-1]
    refined = found.reconstruction.refined
    assert refined is not None
    assert refined.passes_done == found.passes > 4


def test_a_wrong_probe_is_freed() -> None:
    """[AUTO-002]"""
    scan = simulated()
    y, x = np.indices((32, 32)) - 15.5
    wrong = replace(scan, probe=(scan.probe * np.exp(0.02j * (y**2 + x**2))).astype(np.complex64))
    found = reconstruct_automatically(wrong, None)
    assert Freedom.PROBE in found.freed
    held = reconstruct_automatically(wrong, None, AutomaticConfig(may_free=()))
    assert held.freed == frozenset()
    assert found.reconstruction.residual < 0.5 * held.reconstruction.residual


def test_only_the_last_object_is_judged(caplog: pytest.LogCaptureFixture) -> None:
    """[AUTO-005] Of the others nothing is said while work on them goes on."""
    scan = simulated()
    y, x = np.indices((32, 32)) - 15.5
    wrong = replace(scan, probe=(scan.probe * np.exp(0.02j * (y**2 + x**2))).astype(np.complex64))
    warned: list[int] = []
    shown: list[Reconstruction] = []

    def update(so_far: Callable[[], Reconstruction]) -> None:
        shown.append(so_far())
        warned.append(len(caplog.records))

    with caplog.at_level("WARNING"):
        found = reconstruct_automatically(wrong, None, AutomaticConfig(may_free=()), update=update)
    assert {one.verdict for one in shown} == {None}
    assert {one.warnings for one in shown} == {()}
    assert set(warned) == {0}
    assert found.reconstruction.verdict is not None
    assert found.reconstruction.warnings
    assert caplog.records


def test_a_beam_that_flickers_is_noticed() -> None:
    """[AUTO-002]"""
    found = reconstruct_automatically(simulated(flux_deviation=0.2), None)
    assert Freedom.FLUX in found.freed
    assert found.reconstruction.flux is not None


def test_a_stage_that_is_off_is_corrected_and_the_corrections_of_all_rounds_are_figures() -> None:
    """[AUTO-002] Also where the last round moved nothing."""
    scan = simulated()
    off = scan.positions + np.random.default_rng(0).normal(0, 0.7, scan.positions.shape)
    found = reconstruct_automatically(replace(scan, positions=off), None)
    assert Freedom.POSITIONS in found.freed
    refined = found.reconstruction.refined
    assert refined is not None
    moved = found.reconstruction.positions - off
    assert refined.moved_px == pytest.approx(np.sqrt((moved**2).sum(axis=1).mean()))
    assert refined.moved_px > 0.5


def test_modes_that_the_probe_lacks_are_added() -> None:
    """[AUTO-008] Only where patterns show more than one."""
    probe = simulate_probe("gaussian", 32, photons=1e6, modes=2)
    scan = simulate_scan(SimulationConfig(N=32, rows=12, cols=12, step_px=3.0, seed=1), probe=probe)
    found = reconstruct_automatically(replace(scan, probe=scan.probe[:1]), None)
    assert Freedom.MODES in found.freed
    assert len(found.reconstruction.probe) > 1
    assert any("incoherent modes" in one for one in found.story)
    assert found.reconstruction.variation is None


def test_a_probe_that_varies_is_noticed() -> None:
    """[AUTO-009]"""
    scan = simulated(scan_kind="spiral", probe_kind="defocused", object_kind="mixture", probe_variation_rad=0.4, seed=3)
    found = reconstruct_automatically(scan, None)
    assert Freedom.VARIATION in found.freed
    assert any("vary over the scan" in one for one in found.story)
    assert found.reconstruction.variation is not None
    held = reconstruct_automatically(scan, None, AutomaticConfig(may_free=(Freedom.PROBE, Freedom.MODES)))
    assert error_of(found.reconstruction, scan) < 0.5 * error_of(held.reconstruction, scan)


def test_a_dim_object_is_as_bright_as_the_counts_say() -> None:
    """[AUTO-010]"""
    scan = simulated(nphotons=200, N=32, rows=8, cols=8)
    found = reconstruct_automatically(scan, None).reconstruction
    assert found.refined is not None
    assert found.refined.likelihood == "amplitude"
    model = ScanModel(found.probe, found.positions)
    canvas = Canvas(found.object, found.frame, NUMPY)
    light = ForwardResidual(model, Patterns(scan)).light(canvas)
    assert light.mean() == pytest.approx(1.0, abs=0.02)


def test_no_time_gives_the_start() -> None:
    """[AUTO-003]"""
    scan = simulated()
    found = reconstruct_automatically(scan, None, AutomaticConfig(max_time=1e-9))
    assert found.passes == 0
    assert "time did not suffice for a pass" in found.story[-1]
    assert np.isfinite(found.reconstruction.object).all()


def test_a_time_limit_is_kept() -> None:
    """[AUTO-003] Whatever the passes would still bring."""
    found = reconstruct_automatically(simulated(), None, AutomaticConfig(max_time=1.0))
    assert found.reconstruction.seconds["all"] < 5


@pytest.mark.parametrize(("max_time", "said"), [(0.3, True), (60.0, False)])
def test_a_time_too_short_for_trials_is_said(max_time: float, said: bool) -> None:
    """[AUTO-005]"""
    found = reconstruct_automatically(simulated(N=64, step_px=6.0), None, AutomaticConfig(max_time=max_time))
    assert found.passes > 0
    assert ("did not suffice to find out whether more is wrong" in found.story[-1]) is said


def test_few_patterns_are_refused() -> None:
    """[AUTO-004]"""
    scan = simulated()
    with pytest.raises(DataError, match=f"{MIN_PATTERNS} are needed"):
        reconstruct_automatically(scan.select(np.arange(MIN_PATTERNS - 1)), None)


def test_a_cancelled_run_returns_what_it_has() -> None:
    """[AUTO-004]"""
    monitor = Monitor(lambda progress: monitor.cancel() if second_pass(progress) else None)

    def second_pass(progress: Progress) -> bool:
        return progress.stage == "refine" and progress.done == 2

    found = reconstruct_automatically(simulated(), None, monitor=monitor)
    assert found.passes == 2


def test_the_object_so_far_is_shown() -> None:
    """[AUTO-005]"""
    shown: list[Reconstruction] = []
    found = reconstruct_automatically(simulated(), None, update=lambda so_far: shown.append(so_far()))
    residuals = [one.residual for one in shown]
    assert len(residuals) >= 1
    assert residuals == sorted(residuals, reverse=True)
    assert found.reconstruction.residual <= residuals[-1]


def test_the_first_rounds_use_the_inner_half_of_wide_patterns() -> None:
    """[AUTO-011] Their objects have all pixels, but no fine details; a probe that they free goes over."""
    scan = simulated(N=64, rows=9, cols=9, step_px=6.0, object_kind="textured")
    y, x = np.indices((64, 64)) - 31.5
    wrong = replace(scan, probe=(scan.probe * np.exp(0.005j * (y**2 + x**2))).astype(np.complex64))
    shown: list[Reconstruction] = []
    found = reconstruct_automatically(wrong, None, update=lambda so_far: shown.append(so_far()))
    assert "The first rounds used the inner half of the patterns." in found.story
    assert Freedom.PROBE in found.freed
    shapes = {(one.object.shape, one.probe.shape) for one in [*shown, found.reconstruction]}
    assert shapes == {(found.reconstruction.object.shape, (1, 64, 64))}

    def details(one: Reconstruction) -> float:
        """Variance beyond half the Nyquist frequency."""
        power = np.abs(np.fft.fft2(one.object[40:80, 40:80] * np.hanning(40)[:, None] * np.hanning(40))) ** 2
        return float(power[10:31].sum() / power[1:].sum())

    assert max(details(one) for one in shown[:2]) < 0.5 * details(shown[2])
    assert shown[2].residual < 0.9 * shown[1].residual < 0.045
    assert error_of(found.reconstruction, scan) < 0.05
    held = reconstruct_automatically(wrong, None, AutomaticConfig(may_free=()))
    assert found.reconstruction.residual < 0.5 * held.reconstruction.residual


def test_standard_errors_on_request() -> None:
    """[AUTO-007]"""
    found = reconstruct_automatically(simulated(), None, AutomaticConfig(max_time=5.0, uncertainty=True))
    assert found.from_flat
    errors = found.reconstruction.uncertainty
    assert errors is not None
    assert np.nanmedian(errors.phase_error) > 0


def test_a_probe_of_several_modes() -> None:
    probe = simulate_probe("gaussian", 32, photons=1e6, modes=2)
    scan = simulate_scan(SimulationConfig(N=32, rows=12, cols=12, step_px=3.0, seed=1), probe=probe)
    found = reconstruct_automatically(scan, None)
    assert found.reconstruction.probe.shape == (2, 32, 32)
