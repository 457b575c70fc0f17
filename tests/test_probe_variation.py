"""Probes that vary over a scan. Requirements: specs/13-refinement.md, specs/02-simulation.md."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from array_libraries import StrictLibrary
from product_residual import residual_of
from pydantic import ValidationError

from ptychopinn.arrays import NUMPY, ArrayLibrary
from ptychopinn.automatic import AutomaticReconstruction, reconstruct_automatically
from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig
from ptychopinn.config.automatic import AutomaticConfig
from ptychopinn.config.solver import SolverOptions
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.errors import DataError
from ptychopinn.exposure import Exposure
from ptychopinn.forward import expected_counts
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.interpolation import shift_probe
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.probe_variation import VaryingProbe
from ptychopinn.product import ProductFormat, product_of, read_product, write_product, write_product_as
from ptychopinn.reconstruction import reconstruct
from ptychopinn.reconstructor import PatchBatch, Prediction
from ptychopinn.refinement import Refinement, RefineOptions, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_probe, simulate_scan, simulated_truth, true_patches
from ptychopinn.solvers.classical import RPIE
from ptychopinn.solvers.engine import PassEngine
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.solvers.options import PassOptions
from ptychopinn.typing import ComplexArray

CONFIG = SimulationConfig(
    N=32,
    rows=12,
    cols=12,
    step_px=3.0,
    scan_kind="spiral",
    probe_kind="defocused",
    object_kind="mixture",
    probe_variation_rad=0.4,
    seed=4,
)
CONSTANT = CONFIG.model_copy(update={"probe_variation_rad": 0.0})


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(CONFIG)


def truth(scan: ScanDataset) -> ComplexArray:
    assert scan.object_guess is not None
    return scan.object_guess


def refine_from_flat(
    scan: ScanDataset, modes: int, passes: int = 16, library: ArrayLibrary = NUMPY, **options: Any
) -> Refinement:
    """From an object of which nothing is known, with a free probe."""
    frame = Frame(truth(scan).shape)
    start = Canvas(library.from_host(flat_object(frame)), frame, library)
    settings = RefineOptions(passes, **{"update_probe": True, "schedule": rpie_schedule(passes)} | options)
    model = ScanModel(library.from_host(scan.probe), scan.positions)
    return refine(Patterns(scan, library), model, start, replace(settings, update_variation=modes))


def error(found: Refinement, scan: ScanDataset) -> float:
    aligned = align(truth(scan), found.object, scan_box(scan.positions, truth(scan).shape))
    return float(score(aligned)["nrmse"])


def varied(model: ScanModel) -> ComplexArray:
    """(n, N, N): the first mode of every pattern's probe."""
    assert model.variation is not None
    probes: ComplexArray = model.probe[0] + np.tensordot(model.variation.weights, model.variation.modes, axes=1)
    return probes


def on_host(model: ScanModel) -> ScanModel:
    assert model.variation is not None
    return replace(
        model,
        probe=np.asarray(model.probe),
        variation=replace(model.variation, modes=np.asarray(model.variation.modes)),
    )


@pytest.fixture(scope="module")
def found(scan: ScanDataset) -> Refinement:
    return refine_from_flat(scan, 4)


def test_simulated_probes_vary_as_they_are_said_to(scan: ScanDataset) -> None:
    """[SIM-051]"""
    true, still = simulated_truth(CONFIG), simulated_truth(CONSTANT)
    assert still.aberrations is None
    assert true.aberrations is not None
    np.testing.assert_array_equal(true.object, still.object)
    np.testing.assert_array_equal(still.probes(), still.probe)
    rms = np.sqrt((true.aberrations**2).sum(axis=1).mean())
    assert rms == pytest.approx(0.4, rel=1e-6)
    np.testing.assert_allclose(true.aberrations.mean(axis=0), 0, atol=1e-9)
    probes = true.probes()
    np.testing.assert_allclose((np.abs(probes) ** 2).sum(axis=(1, 2, 3)), 1e6, rtol=1e-4)
    still_field, field = (np.fft.fft2(probe) for probe in (true.probe[0], probes[-1, 0]))
    power, phase = np.abs(still_field) ** 2, np.angle(field * still_field.conj())
    weighted = np.sqrt((power * phase**2).sum() / power.sum())
    assert weighted == pytest.approx(np.linalg.norm(true.aberrations[-1]), rel=0.1)  # far out, phases are wrapped
    expected = expected_counts(true.object, probes, true.positions)
    assert ((np.asarray(scan.patterns) - expected) ** 2).mean() == pytest.approx(expected.mean(), rel=0.05)  # Poisson


def test_passes_find_the_object_under_a_varying_probe(scan: ScanDataset, found: Refinement) -> None:
    """[REFINE-027]"""
    held = refine_from_flat(scan, 0)
    assert held.model.variation is None
    assert held.summary.variation_share is None
    assert error(found, scan) < 0.5 * error(held, scan)
    assert found.summary.residual_after < 0.6 * held.summary.residual_after
    true = simulated_truth(CONFIG).probes()[:, 0]
    ours = varied(found.model)
    overlap = np.abs((ours.conj() * true).sum(axis=(1, 2)))
    overlap /= np.linalg.norm(ours, axis=(1, 2)) * np.linalg.norm(true, axis=(1, 2))
    assert overlap.mean() > 0.98
    mean = true.mean(axis=0)
    assert found.summary.variation_share == pytest.approx(1 - np.linalg.norm(mean) ** 2 / 1e6, rel=0.3)


def test_a_constant_probe_stays_constant() -> None:
    """[REFINE-027]"""
    still = simulate_scan(CONSTANT)
    held, free = (refine_from_flat(still, modes) for modes in (0, 4))
    assert free.summary.variation_share is not None
    assert free.summary.variation_share < 1e-3
    assert error(free, still) < 1.3 * error(held, still)


@pytest.mark.parametrize("moves", [False, True])
def test_modes_and_weights_are_in_their_gauge(scan: ScanDataset, found: Refinement, moves: bool) -> None:
    """[REFINE-028]"""
    model = refine_from_flat(scan, 2, 4, update_positions=True, update_flux=True).model if moves else found.model
    assert model.variation is not None
    weights, modes, probe = model.variation.weights, model.variation.modes, model.probe[0]
    np.testing.assert_allclose(weights.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(weights.T @ weights / len(weights), np.eye(len(modes)), atol=1e-3)
    slopes = [np.gradient(probe, axis=axis) for axis in (0, 1)] if moves else []
    fixed = np.stack([probe, 1j * probe, *slopes])
    overlaps = np.einsum("kyx,lyx->kl", np.concatenate([modes, fixed]).conj(), modes).real
    power = (np.abs(modes) ** 2).sum(axis=(1, 2))
    assert (np.diff(power) < 0).all()
    norms = np.linalg.norm(np.concatenate([modes, fixed]), axis=(1, 2))
    np.testing.assert_allclose(overlaps / np.outer(norms, np.sqrt(power)), np.eye(len(norms), len(modes)), atol=0.03)
    energy = float((np.abs(model.probe) ** 2).sum() + power.sum())
    assert energy == pytest.approx((np.abs(scan.probe) ** 2).sum(), rel=1e-3)


def test_the_model_that_judges_has_the_probe_of_every_pattern(scan: ScanDataset, found: Refinement) -> None:
    """[REFINE-027] against the reference, also in a library without NumPy's extras."""
    expected = np.sqrt(expected_counts(found.object, varied(found.model)[:, None], scan.positions))
    measured = np.sqrt(np.asarray(scan.patterns))
    reference = np.sqrt(((measured - expected) ** 2).sum() / (measured**2).sum())
    frame = Frame(truth(scan).shape)
    judged = ForwardResidual(found.model, Patterns(scan))(Canvas(found.object, frame))
    assert judged == pytest.approx(reference, rel=1e-4)
    ours, theirs = (refine_from_flat(scan, 2, 2, library) for library in (NUMPY, StrictLibrary()))
    assert theirs.summary.residual_after == pytest.approx(ours.summary.residual_after, rel=5e-3)
    here, there = (varied(on_host(one.model)) for one in (ours, theirs))
    assert np.linalg.norm(there - here) < 0.1 * np.linalg.norm(here)  # sums are of another order


def test_only_the_first_mode_varies_at_every_place_of_an_exposure() -> None:
    """[REFINE-027] with incoherent modes, and where the stage moves ([REFINE-026])."""
    rng = np.random.default_rng(0)
    probe, modes = ((rng.normal(size=(k, 8, 8)) + 1j * rng.normal(size=(k, 8, 8))).astype(np.complex64) for k in (3, 2))
    weights, fractions = rng.normal(size=(5, 2)).astype(np.float32), rng.uniform(-0.5, 0.5, (5, 2))
    exposure = Exposure((0.0, 2.0), 8)
    probes = VaryingProbe(probe, modes, exposure, NUMPY)(fractions, weights)
    for number, (weight, fraction) in enumerate(zip(weights, fractions, strict=True)):
        own = probe.copy()
        own[0] += np.tensordot(weight, modes, axes=1)
        expected = shift_probe(exposure.spread(own), fraction[None])[0]
        np.testing.assert_allclose(probes[number], expected, atol=1e-5)


def test_weights_that_run_away_are_set_to_0(scan: ScanDataset, found: Refinement) -> None:
    """[REFINE-028] and counted."""
    patterns = np.array(scan.patterns)
    patterns[40] *= 100
    start = Canvas(found.object.copy(), Frame(truth(scan).shape))
    options = PassOptions(rpie_schedule(2), update_probe=True, update_variation=4)
    spoilt = Patterns(replace(scan, patterns=patterns))
    engine = PassEngine(spoilt, np.arange(len(scan)), found.model, start, options)
    engine.run(0, 2, NULL_MONITOR)
    assert engine.weight_runaways >= 1  # and some neighbours, whose object is that bright
    assert engine.model.variation is not None
    assert np.abs(engine.model.variation.weights[40]).max() < 0.3  # 0, less the mean


def test_what_is_given_is_brought_into_its_gauge(scan: ScanDataset, found: Refinement) -> None:
    """[REFINE-028] The probe of no pattern changes by that, and the energy is that of probe and variation."""
    variation = found.model.variation
    assert variation is not None
    other = replace(
        found.model,
        probe=found.model.probe - 0.5 * variation.modes[:1],
        variation=replace(variation, weights=variation.weights + np.float32([0.5, 0, 0, 0])),
    )
    start = Canvas(found.object.copy(), Frame(truth(scan).shape))
    options = PassOptions(rpie_schedule(2), update_probe=True, update_variation=4)
    engine = PassEngine(Patterns(scan), np.arange(len(scan)), other, start, options)
    engine.run(0, 2, NULL_MONITOR)
    _, again = engine.result()
    before, after = (varied(model) for model in (found.model, again))
    assert again.variation is not None
    np.testing.assert_allclose(again.variation.weights.mean(axis=0), 0, atol=1e-4)
    assert np.linalg.norm(after - before) < 0.1 * np.linalg.norm(before)
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), rel=1e-3)


def test_held_out_patterns_have_weights_of_their_own(scan: ScanDataset) -> None:
    """[REFINE-027] where photons are few ([REFINE-013])."""
    dim = simulate_scan(CONFIG.model_copy(update={"nphotons": 2e3}))
    found = refine_from_flat(dim, 2, schedule=None)
    assert found.summary.held_out > 0
    assert found.summary.passes_kept > 0
    assert found.model.variation is not None
    judges = np.arange(len(dim))[4::8]
    assert (found.model.variation.weights[judges] != 0).all()


def test_a_variation_without_a_free_probe_is_refused() -> None:
    """[REFINE-027]"""
    with pytest.raises(ValidationError, match="refine_probe_variation has no effect without refine_probe"):
        InferConfig(refine_probe_variation=2)


class Oracle:
    """Predicts the patches of a known object, with one probe for all patterns."""

    model = ModelConfig(N=32)

    def __init__(self, obj: ComplexArray, probe: ComplexArray | None = None) -> None:
        self._object, self._probe = obj, probe

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        own = probe_in_counts(data, fit_scaling(data), follow_offset=True)
        patches = true_patches(self._object, data.positions, 16).astype(np.complex64)
        batches = [PatchBatch(np.arange(len(data)), patches)]
        return Prediction(own if self._probe is None else self._probe, 16, iter(batches))


@pytest.fixture(scope="module")
def given(scan: ScanDataset, found: Refinement) -> ScanDataset:
    """The scan with the probe and the variation that passes found."""
    return replace(scan, probe=found.model.probe, probe_variation=found.model.variation)


@pytest.mark.slow
@pytest.mark.parametrize(("passes", "share"), [(0, 0.95), (4, 0.7)])
def test_what_is_given_is_started_from_and_judges(
    given: ScanDataset, found: Refinement, passes: int, share: float
) -> None:
    """[REFINE-030] [DATA-142] The mean probe explains the patterns worse, as do passes with it."""
    oracle: Any = Oracle(found.object)
    ours, theirs = (
        reconstruct(oracle, data, InferConfig(refine=passes)) for data in (given, replace(given, probe_variation=None))
    )
    assert ours.residual < share * theirs.residual
    assert theirs.variation is None
    assert ours.variation is not None
    assert ours.variation.weights.shape == (len(given), 4)
    assert found.model.variation is not None
    ratio = np.linalg.norm(ours.variation.modes, axis=(1, 2)) / np.linalg.norm(found.model.variation.modes, axis=(1, 2))
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


def test_a_variation_about_another_probe_is_not_used(
    given: ScanDataset, found: Refinement, caplog: pytest.LogCaptureFixture
) -> None:
    """[REFINE-030] That of a model, for example; it is said."""
    oracle: Any = Oracle(found.object, simulate_probe("disc", 32, photons=1e6))
    with caplog.at_level(logging.WARNING):
        assert reconstruct(oracle, given, InferConfig(refine=0)).variation is None
    assert "With --probe-source scan" in caplog.text


@pytest.mark.slow
def test_reconstructions_without_decisions_start_from_what_is_given(given: ScanDataset, scan: ScanDataset) -> None:
    """[REFINE-030] After the same passes from a flat object."""

    def after_four_passes(data: ScanDataset, library: ArrayLibrary = NUMPY) -> AutomaticReconstruction:
        monitor = Monitor(lambda progress: monitor.cancel() if progress.stage == "rounds" else None)
        return reconstruct_automatically(data, None, AutomaticConfig(may_free=()), library=library, monitor=monitor)

    ours, theirs = after_four_passes(given), after_four_passes(replace(given, probe_variation=None))
    assert ours.passes == theirs.passes > 0
    assert "varies by 4 modes" in ours.story[0]
    assert ours.reconstruction.residual < 0.7 * theirs.reconstruction.residual
    assert ours.reconstruction.variation is not None
    there = after_four_passes(given, StrictLibrary()).reconstruction
    assert there.residual == pytest.approx(ours.reconstruction.residual, rel=0.02)


def test_where_one_probe_is_used_it_is_said(given: ScanDataset, caplog: pytest.LogCaptureFixture) -> None:
    """[DATA-142]"""
    with caplog.at_level(logging.WARNING):
        RPIE(SolverOptions(passes=1)).reconstruct(given)
    assert "varies over the scan (4 modes); here its mean is used" in caplog.text


@pytest.mark.parametrize("form", [None, *ProductFormat])
def test_a_product_keeps_the_variation(
    scan: ScanDataset, found: Refinement, form: ProductFormat | None, tmp_path: Path
) -> None:
    """[PROD-022] bit by bit, and explains the patterns as the log says ([PROD-010])."""
    product = product_of(scan, found.object, found.model.probe)
    product = replace(product, variation=found.model.variation)
    path = tmp_path / "product.h5"
    if form is None:
        write_product(path, product)
    else:
        write_product_as(path, product, form)
    read = read_product(path)
    assert read.variation is not None
    assert product.variation is not None
    np.testing.assert_array_equal(read.probe, product.probe)
    np.testing.assert_array_equal(read.variation.modes, product.variation.modes)
    np.testing.assert_array_equal(read.variation.weights, product.variation.weights)
    assert residual_of(read, scan) == pytest.approx(found.summary.residual_after, rel=1e-3)


def test_a_product_of_another_program_may_weigh_its_first_mode_too(
    scan: ScanDataset, found: Refinement, tmp_path: Path
) -> None:
    """[PROD-022] All patterns have the probe that they had there."""
    variation = found.model.variation
    assert variation is not None
    path, product = tmp_path / "product.h5", product_of(scan, found.object, found.model.probe)
    write_product(path, replace(product, variation=variation))
    weights = np.random.default_rng(0).uniform(0.5, 1.5, (len(scan), 5))
    with h5py.File(path, "r+") as file:
        file["opr_weights"][...] = weights
        modes = file["probe"][:, 0]
    read = read_product(path)
    probes = varied(ScanModel(read.probe, read.positions, variation=read.variation))
    np.testing.assert_allclose(probes, np.tensordot(weights, modes, axes=1), atol=1e-3)


def test_weights_that_fit_no_pattern_are_refused(scan: ScanDataset, found: Refinement) -> None:
    """[PROD-022]"""
    assert found.model.variation is not None
    short = replace(found.model.variation, weights=found.model.variation.weights[1:])
    with pytest.raises(DataError, match="variation"):
        replace(product_of(scan, found.object, found.model.probe), variation=short)
