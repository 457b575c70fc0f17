"""Reconstructions whose prediction is refined: specs/13-refinement.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from refinement_samples import SIZE, N, astray, move_positions, predicted, wrong_probe

from ptychopinn.arrays import ArrayLibrary
from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.data.subsampling import thin_positions
from ptychopinn.errors import ConfigError
from ptychopinn.metrics.quality import forward_residual
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstruction import Reconstruction, reconstruct
from ptychopinn.reconstructor import PatchBatch, Prediction
from ptychopinn.simulate import probe_width_px, simulate_scan, true_patches
from ptychopinn.typing import ComplexArray


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=9, cols=9, nphotons=1e6, seed=3))


class Oracle:
    """Predicts the patches of a given object."""

    def __init__(self, obj: ComplexArray, model: ModelConfig | None = None) -> None:
        self.obj, self.model = obj, model or ModelConfig(N=N)

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        patches = true_patches(self.obj, data.positions, SIZE)
        return Prediction(data.probe, SIZE, iter([PatchBatch(np.arange(len(data)), patches)]))


def reconstructed(
    data: ScanDataset, monitor: Monitor = NULL_MONITOR, *, whole: ScanDataset | None = None, **config: Any
) -> Reconstruction:
    """A reconstruction without passes, unless they are asked for; what is predicted is that of the whole scan."""
    oracle: Any = Oracle(predicted(whole or data))
    return reconstruct(oracle, data, InferConfig(**{"refine": 0, **config}), monitor=monitor)


def test_a_reconstruction_adds_modes_on_request() -> None:
    """[REFINE-025]"""
    config = SimulationConfig(N=64, rows=9, cols=9, step_px=5.0, nphotons=1e6, probe_modes=2, seed=7)
    partial = simulate_scan(config)
    partial = replace(partial, probe=partial.probe[:1])
    found, plain = (
        reconstructed(partial, refine=4, refine_probe=True, refine_modes=modes).probe.shape[0] for modes in (2, None)
    )
    assert (found, plain) == (2, 1)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("budget", [1, 1024])
def test_reconstructions_are_refined(
    scan: ScanDataset, bare: bool, budget: int, caplog: pytest.LogCaptureFixture
) -> None:
    """[REFINE-002] [REFINE-004] [REFINE-009] in the frame and with the coverage of the prediction."""
    data = replace(scan, object_guess=None) if bare else scan
    plain = reconstructed(data, whole=scan, memory_budget_mb=budget)
    assert plain.refined is None
    assert "refine" not in plain.seconds
    with caplog.at_level("INFO", logger="ptychopinn"):
        found = reconstructed(data, whole=scan, refine=3, memory_budget_mb=budget)
    assert found.refined is not None
    assert found.refined.residual_before == plain.residual
    assert found.refined.residual_after == pytest.approx(found.residual)
    assert found.residual < 0.75 * plain.residual
    assert found.frame == plain.frame
    np.testing.assert_array_equal(found.coverage, plain.coverage)
    uncovered = found.coverage <= 1e-3
    assert set(found.object[uncovered]) <= {1 + 0j}
    np.testing.assert_array_equal(found.probe, plain.probe)
    assert "refine" in found.seconds
    assert "3 of 3 passes" in caplog.text


def test_the_probe_of_a_reconstruction(scan: ScanDataset) -> None:
    """[REFINE-006] and its setting."""
    off = replace(scan, probe=wrong_probe(scan, 0.5))
    held, free = reconstructed(off, refine=3), reconstructed(off, refine=3, refine_probe=True)
    np.testing.assert_array_equal(held.probe, off.probe)
    assert not np.array_equal(free.probe, off.probe)
    assert free.residual < held.residual
    with pytest.raises(ValidationError, match="refine_probe has no effect without refine"):
        InferConfig(refine=0, refine_probe=True)
    with pytest.raises(ValidationError, match="refine_positions and refine_likelihood has no effect without refine"):
        InferConfig(refine=0, refine_positions=True, refine_likelihood="poisson")


def test_two_passes_by_default(scan: ScanDataset) -> None:
    """[REFINE-009] A reconstruction without settings makes them."""
    oracle: Any = Oracle(predicted(scan))
    found = reconstruct(oracle, scan)
    assert found.refined is not None
    assert (found.refined.passes_asked, found.refined.passes_kept) == (2, 2)
    assert reconstructed(scan, refine=0).refined is None


def test_a_cancelled_refinement_is_told(scan: ScanDataset) -> None:
    """[REFINE-007] the object so far is there, with a warning."""
    monitor = Monitor(lambda p: monitor.cancel() if (p.stage, p.done) == ("refine", 1) else None)
    found = reconstructed(scan, monitor, refine=20)
    assert "cancelled after 1 of 20 passes" in found.warnings[-1]
    assert found.refined is not None
    assert found.residual < found.refined.residual_before


def test_no_progress_is_told(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """[REFINE-002]"""
    monkeypatch.setattr("ptychopinn.refinement.passes.PassEngine.run", lambda self, *a: 0.0)
    monkeypatch.setattr("ptychopinn.refinement.passes.slow_phase", lambda *a, **k: None)
    found = reconstructed(scan, refine=2)
    assert "No pass of the refinement was kept" in found.warnings[-1]


def test_the_network_sees_a_part_and_the_passes_all(
    scan: ScanDataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[REFINE-014]"""
    asked = []
    original = Oracle.infer

    def infer(self: Oracle, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        asked.append(data.positions)
        return original(self, data, config, monitor=monitor)

    monkeypatch.setattr(Oracle, "infer", infer)
    bare = replace(scan, object_guess=None)
    every = reconstructed(bare, whole=scan, refine=1)
    with caplog.at_level("INFO", logger="ptychopinn"):
        part = reconstructed(bare, whole=scan, refine=1, predict_overlap=0.4)
    assert len(asked[1]) < 0.5 * len(asked[0]) == 0.5 * len(scan)
    assert f"The network sees {len(asked[1])} of {len(scan)} patterns" in caplog.text
    apart = np.linalg.norm(asked[1][:, None] - asked[1], axis=-1) + 1e9 * np.eye(len(asked[1]))
    assert apart.min() > 0.25 * probe_width_px(scan.probe)
    assert np.median(apart.min(axis=1)) == pytest.approx(0.6 * probe_width_px(scan.probe), rel=0.25)
    assert part.frame == every.frame
    np.testing.assert_allclose(part.coverage, every.coverage, rtol=1e-5, atol=1e-6)
    assert part.placed == len(asked[1])
    assert part.refined is not None
    assert part.residual < 0.6 * part.refined.residual_before
    # The passes use every pattern: they end better than passes over those that the network saw.
    seen = bare.select(thin_positions(bare.positions, 0.6 * probe_width_px(bare.probe)))
    np.testing.assert_array_equal(seen.positions, asked[1])
    few = reconstructed(seen, whole=scan, refine=1)
    assert part.residual < 0.8 * forward_residual(few.object, few.frame.origin, few.probe, bare)


@pytest.mark.slow
def test_the_dose_is_that_of_all_patterns(scan: ScanDataset) -> None:
    """[REFINE-014]"""
    given = []

    class Asked(Oracle):
        def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
            given.append(fit_scaling(data).mean_counts)
            return super().infer(data, config, monitor=monitor)

    bright = np.where(np.arange(len(scan)) % 2 == 0, 1, 4)[:, None, None]
    uneven = replace(scan, patterns=scan.counts(slice(None)) * bright, measurement=Measurement.COUNTS)
    oracle: Any = Asked(predicted(scan))
    reconstruct(oracle, uneven, InferConfig(refine=1, predict_overlap=0.4))
    assert given == [pytest.approx(fit_scaling(uneven).mean_counts)] * len(given)
    assert given


def test_coverage_is_that_of_what_was_seen(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """[REFINE-014]"""
    bare = replace(scan, object_guess=None)
    seen = bare.select(thin_positions(bare.positions, 0.6 * probe_width_px(bare.probe)))
    monkeypatch.setattr("ptychopinn.refinement.passes.PassEngine.run", lambda self, *a: 0.0)
    monkeypatch.setattr("ptychopinn.refinement.passes.slow_phase", lambda *a, **k: None)
    found, few = reconstructed(bare, whole=scan, refine=1, predict_overlap=0.4), reconstructed(seen, whole=scan)
    assert found.refined is not None
    assert found.refined.passes_kept == 0
    assert found.coverage.sum() == pytest.approx(few.coverage.sum(), rel=1e-4)


def test_refusals_of_a_part(scan: ScanDataset) -> None:
    """[REFINE-014]"""
    with pytest.raises(ValidationError, match="predict_overlap has no effect without refine"):
        InferConfig(refine=0, predict_overlap=0.4)
    oracle: Any = Oracle(predicted(scan), ModelConfig(N=N, architecture="cnn", object_big=True))
    with pytest.raises(ConfigError, match="several neighbouring patterns"):
        reconstruct(oracle, scan, InferConfig(refine=1, predict_overlap=0.4))


def test_the_product_has_the_positions_of_the_object(scan: ScanDataset) -> None:
    """[REFINE-011]"""
    wrong = move_positions(scan, 0.7)
    held, free = reconstructed(wrong, refine=5), reconstructed(wrong, refine=5, refine_positions=True)
    np.testing.assert_array_equal(held.positions, wrong.positions)
    assert astray(free.positions, wrong) > 0.1
    assert free.residual < held.residual


def test_passes_get_the_memory_that_is_allowed(scan: ScanDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """[REFINE-008] amplitudes get what the budget allows, where they are used more than once."""
    given: list[int] = []

    def counted(data: ScanDataset, library: ArrayLibrary, host_budget_bytes: int = 0) -> Patterns:
        given.append(host_budget_bytes)
        return Patterns(data, library, host_budget_bytes)

    for module in ("assembly", "reconstruction"):
        monkeypatch.setattr(f"ptychopinn.{module}.Patterns", counted)
    for passes, budget in ((1, 0), (2, 3 * 2**20)):
        given.clear()
        reconstructed(scan, refine=passes, memory_budget_mb=3)
        assert given == [0, budget]  # for judging what synchronisation found, and for the passes
