"""Positions, flux and background that passes fit beside the object. Requirements: specs/13-refinement.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.config.infer import Background, Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.forward import expected_counts
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.product import product_of, read_product, write_product
from ptychopinn.refinement import Refinement, RefineOptions, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan, simulated_truth
from ptychopinn.solvers import positions
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.solvers.position_steps import PositionSteps, SecantStep
from ptychopinn.solvers.slow_phase import slow_phase
from ptychopinn.typing import ComplexArray, FloatArray

N = 64


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    config = SimulationConfig(N=N, rows=11, cols=11, step_px=4.0, nphotons=1e6, object_kind="mixture", seed=7)
    return simulate_scan(config)


def truth(scan: ScanDataset) -> ComplexArray:
    assert scan.object_guess is not None
    return scan.object_guess


def measured(scan: ScanDataset, *, flux: FloatArray | float = 1.0, background: FloatArray | float = 0.0) -> ScanDataset:
    """The scan under another light."""
    counts = expected_counts(truth(scan), scan.probe, scan.positions) * np.reshape(flux, (-1, 1, 1)) + background
    return replace(scan, patterns=np.random.default_rng(4).poisson(counts).astype(np.uint32))


def refine_from_flat(scan: ScanDataset, passes: int = 12, **options: Any) -> Refinement:
    """From an object of which nothing is known."""
    frame = Frame(truth(scan).shape)
    start = Canvas(flat_object(frame), frame)
    return refine(
        Patterns(scan, host_budget_bytes=1 << 30),
        ScanModel(scan.probe, scan.positions),
        start,
        RefineOptions(passes, **options),
    )


def error(found: ComplexArray, scan: ScanDataset) -> float:
    """|G - R| / |G| inside the box of positions, one complex factor removed."""
    low, high = scan.positions.min(axis=0).astype(int), scan.positions.max(axis=0).astype(int)
    box = slice(low[0], high[0]), slice(low[1], high[1])
    a, b = truth(scan)[box], found[box]
    return float(np.linalg.norm(a - b * (np.vdot(b, a) / np.vdot(b, b))) / np.linalg.norm(a))


def flicker(scan: ScanDataset) -> FloatArray:
    flux = np.exp(np.random.default_rng(9).normal(0, 0.1, len(scan)))
    return flux / flux.mean()


def haze() -> FloatArray:
    """A smooth background of 3% of a million counts."""
    i = np.linspace(-1, 1, N)
    shape = np.exp(-(i[:, None] ** 2 + i**2))
    return 3e4 * shape / shape.sum()


def test_a_flickering_beam_is_followed(scan: ScanDataset) -> None:
    """[REFINE-019]"""
    flux = flicker(scan)
    lit = measured(scan, flux=flux)
    held, free = (refine_from_flat(lit, update_flux=how) for how in (False, True))
    assert free.model.flux is not None
    assert np.std(free.model.flux - flux) < 0.25 * flux.std()  # slowly over the scan, the object can take some of it
    assert free.model.flux.mean() == pytest.approx(1)
    assert error(free.object, scan) < 0.8 * error(held.object, scan)
    assert free.summary.residual_after < 0.9 * held.summary.residual_after
    assert free.summary.flux_deviation == pytest.approx(flux.std(), rel=0.1)
    assert held.model.flux is None
    assert held.summary.flux_deviation is None


@pytest.mark.slow
def test_the_flux_does_not_run_away() -> None:
    """[REFINE-019] in many passes with momentum."""
    config = SimulationConfig(
        rows=15, cols=15, step_px=5.0, object_kind="mixture", seed=7, probe_modes=3, flux_deviation=0.1
    )
    wide = simulate_scan(config)
    found = refine_from_flat(wide, 40, update_flux=True, schedule=rpie_schedule(40)).model.flux
    assert found is not None
    true = simulated_truth(config).flux
    assert np.std(found - true / true.mean()) < 0.03


def test_held_out_patterns_have_the_light_of_their_counts(scan: ScanDataset) -> None:
    """[REFINE-019] where photons are few."""
    flux = flicker(scan)
    dim = replace(scan, probe=(scan.probe * np.sqrt(0.02)).astype(np.complex64))
    free = refine_from_flat(measured(dim, flux=flux), update_flux=True)
    assert free.model.flux is not None
    assert free.summary.passes_kept > 0
    assert np.corrcoef(free.model.flux, flux)[0, 1] > 0.95


@pytest.mark.parametrize("kind", list(Background))
def test_a_background_is_found(scan: ScanDataset, kind: Background) -> None:
    """[REFINE-020]"""
    lit = measured(scan, background=haze())
    held, free = (refine_from_flat(lit, update_background=how) for how in (None, kind))
    assert error(free.object, scan) < 0.34 * error(held.object, scan)
    assert free.summary.background_share is not None
    share = 3e4 / lit.patterns[:].sum(axis=(1, 2)).mean()
    assert free.summary.background_share == pytest.approx(share, rel=0.15)
    assert held.summary.background_share is None


def test_no_background_is_found_where_there_is_none(scan: ScanDataset) -> None:
    """[REFINE-020]"""
    held, free = (refine_from_flat(scan, update_background=how) for how in (None, Background.SMOOTH))
    assert free.summary.background_share is not None
    assert free.summary.background_share < 0.005
    assert error(free.object, scan) < 1.5 * error(held.object, scan)


def test_all_at_once(scan: ScanDataset) -> None:
    """[REFINE-011] [REFINE-019] [REFINE-020] Positions, light and background together, near what a clean scan gives."""
    off = np.random.default_rng(6).normal(0, 0.5, scan.positions.shape)
    lit = replace(
        measured(scan, flux=flicker(scan), background=haze()), positions=scan.positions + off - off.mean(axis=0)
    )
    passes = 20
    found = refine_from_flat(
        lit, passes, update_positions=True, update_flux=True, update_background=Background.SMOOTH, update_probe=False
    )
    away = found.model.positions - scan.positions
    assert np.sqrt(((away - away.mean(axis=0)) ** 2).sum(axis=1).mean()) < 0.2
    assert error(found.object, scan) < 0.4 * error(refine_from_flat(lit, passes).object, scan)


def test_the_model_that_judges_knows_light_and_background(scan: ScanDataset) -> None:
    """[REFINE-021]"""
    flux = flicker(scan)
    lit = measured(scan, flux=flux, background=haze())
    canvas, patterns = Canvas(truth(scan), Frame(truth(scan).shape)), Patterns(lit)
    whole = ScanModel(lit.probe, lit.positions, flux.astype(np.float32), np.fft.ifftshift(haze()).astype(np.float32))
    right, *wrong = (
        ForwardResidual(model, patterns)(canvas)
        for model in (whole, replace(whole, flux=None), replace(whole, background=None))
    )
    assert right < 0.9 * min(wrong)
    light = ForwardResidual(replace(whole, flux=None, background=None), Patterns(measured(scan, flux=flux))).light(
        canvas
    )
    np.testing.assert_allclose(light, flux, atol=0.02)


def test_a_position_that_runs_away_is_put_back(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """[REFINE-011] and counted."""
    monkeypatch.setattr(positions, "MAX_MOVE_PX", 1)
    wrong = scan.positions.copy()
    wrong[50] += [5.0, -5.0]
    found = refine_from_flat(replace(scan, positions=wrong), update_positions=True)
    assert found.summary.positions_reset >= 1
    assert np.abs(found.model.positions - wrong).max() <= 1


def test_free_modes_are_orthogonal() -> None:
    """[REFINE-022] and explain the patterns as before they were mixed."""
    config = SimulationConfig(N=N, rows=7, cols=7, step_px=5.0, nphotons=1e6, probe_modes=3, seed=2)
    scan = simulate_scan(config)
    mixing = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    mixed = replace(scan, probe=np.einsum("ab,byx->ayx", mixing, scan.probe).astype(np.complex64))
    held, free = (refine_from_flat(mixed, 3, update_probe=how) for how in (False, True))
    np.testing.assert_array_equal(held.model.probe, mixed.probe)
    modes = free.model.probe.reshape(3, -1)
    overlaps = modes @ modes.conj().T
    power = np.diag(overlaps).real
    assert (np.diff(power) < 0).all()
    assert np.abs(overlaps - np.diag(power)).max() < 1e-3 * power.sum()
    canvas = Canvas(free.object, Frame(truth(scan).shape))
    judged = ForwardResidual(free.model, Patterns(mixed), max_patterns=256)(canvas)
    assert judged == pytest.approx(free.summary.residual_after, rel=1e-4)
    assert judged < held.summary.residual_after


def test_steps_are_learned_from_moves() -> None:
    """[REFINE-011] A share h of the errors is seen: the step becomes 1 / h, whatever h is."""
    rng = np.random.default_rng(0)
    for share in (0.01, 0.3):
        errors, step = rng.normal(size=(50, 2)), SecantStep(4.0)
        for _ in range(8):
            moves = share * errors
            step.update(moves)
            errors = errors - step.length * moves
        assert step.length == pytest.approx(1 / share, rel=1e-3)
        assert np.abs(errors).max() < 1e-6


def test_what_all_do_together_has_its_own_step() -> None:
    """[REFINE-011] A scale of which passes see a hundredth is found beside single moves of which they see a third."""
    positions = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), axis=-1).reshape(-1, 2) * 5
    positions = positions[np.random.default_rng(1).permutation(len(positions))]
    centred = positions - positions.mean(axis=0)
    common, single = 0.05 * centred, np.random.default_rng(2).normal(0, 0.3, positions.shape)
    single -= centred @ np.linalg.lstsq(centred, single, rcond=None)[0] + single.mean(axis=0)
    steps = PositionSteps(positions, 4.0)
    for _ in range(20):
        moves = steps.moves(0.01 * common + 0.3 * single)
        shared = centred @ np.linalg.lstsq(centred, moves, rcond=None)[0]
        common, single = common - shared, single - (moves - shared)
    assert np.abs(common).max() < 0.05
    assert np.abs(single).max() < 0.05


def test_idle_settings_are_refused() -> None:
    """[REFINE-021]"""
    with pytest.raises(ValidationError, match="refine_flux has no effect without refine"):
        InferConfig(refine=0, refine_flux=True)
    with pytest.raises(ValidationError, match="refine_background has no effect without refine"):
        InferConfig(refine=0, refine_background="smooth")


def test_the_product_has_light_and_background(scan: ScanDataset, tmp_path: Path) -> None:
    """[REFINE-021]"""
    flux = flicker(scan).astype(np.float32)
    product = replace(product_of(scan, truth(scan), scan.probe), flux=flux, background=haze().astype(np.float32))
    write_product(tmp_path / "product.h5", product)
    read = read_product(tmp_path / "product.h5")
    np.testing.assert_array_equal(read.flux, flux)
    np.testing.assert_array_equal(read.background, haze().astype(np.float32))


def believed(scan: ScanDataset) -> ScanDataset:
    """The scan without the level at which its pixels saturate."""
    return replace(scan, metadata=scan.metadata.model_copy(update={"saturation_counts": None}))


@pytest.fixture(scope="module")
def saturated() -> ScanDataset:
    config = SimulationConfig(
        N=N, rows=11, cols=11, step_px=4.0, nphotons=1e6, object_kind="mixture", seed=7, saturation_counts=3000
    )
    return simulate_scan(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"update_flux": True}, {"update_background": Background.SMOOTH}, {"likelihood": Likelihood.POISSON}]
)
def test_saturated_pixels_are_lower_bounds(scan: ScanDataset, saturated: ScanDataset, options: dict[str, Any]) -> None:
    """[REFINE-024]"""
    assert saturated.metadata.saturation_counts == 3000
    assert (saturated.patterns[:] == 3000).sum() > 10 * len(saturated)
    clean, bound, wrong = (refine_from_flat(one, 8, **options) for one in (scan, saturated, believed(saturated)))
    assert error(bound.object, scan) < 2 * error(clean.object, scan)
    assert error(wrong.object, scan) > 5 * error(bound.object, scan)


def test_more_counts_than_a_saturated_pixel_records_are_no_error(scan: ScanDataset, saturated: ScanDataset) -> None:
    """[REFINE-024] in the model that judges, by both likelihoods, and in the flux."""
    canvas = Canvas(truth(scan), Frame(truth(scan).shape))
    for likelihood in Likelihood:
        bound, wrong = (
            ForwardResidual(ScanModel(one.probe, one.positions), Patterns(one), likelihood=likelihood)(canvas)
            for one in (saturated, believed(saturated))
        )
        assert bound < 0.1 < 0.3 < wrong
    light, too_dark = (
        ForwardResidual(ScanModel(one.probe, one.positions), Patterns(one)).light(canvas)
        for one in (saturated, believed(saturated))
    )
    np.testing.assert_allclose(light, 1, atol=0.02)
    assert too_dark.mean() < 0.5


def test_saturated_pixels_do_not_hide_a_slow_phase(scan: ScanDataset, saturated: ScanDataset) -> None:
    """[REFINE-024]"""
    y, x = np.indices(truth(scan).shape) / max(truth(scan).shape)
    lacking = 0.4 * np.sin(5 * x + 1) * np.cos(4 * y)
    canvas = Canvas((truth(scan) * np.exp(-1j * lacking)).astype(np.complex64), Frame(truth(scan).shape))
    at = tuple(np.round(scan.positions).astype(int).T)
    missed = []
    for one in (saturated, believed(saturated)):
        found = slow_phase(Patterns(one), ScanModel(one.probe, one.positions), canvas)
        assert found is not None
        missed.append(float((found - lacking)[at].std()))
    assert missed[0] < 0.2 * lacking[at].std() < 0.5 * missed[1]
