"""Does a reconstruction explain the patterns: specs/21-verdict.md."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.config.simulation import ObjectKind
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.metrics.quality import forward_residual
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers import epie
from ptychopinn.verdict import Evidence, Explains, Verdict, flat_residual, judge


def scan_of(**config: Any) -> ScanDataset:
    default: dict[str, Any] = {"N": 32, "rows": 11, "cols": 11, "seed": 4, "object_kind": ObjectKind.CELLS}
    return simulate_scan(SimulationConfig(**default | config))


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return replace(scan_of(nphotons=1e5), object_guess=None)


def after_passes(data: ScanDataset, passes: int = 8) -> Verdict:
    """The verdict on the result of some passes."""
    probe = probe_in_counts(data, fit_scaling(data), follow_offset=True)
    found = epie(Patterns(data), probe, passes=passes)
    residual = forward_residual(found.object, found.frame.origin, probe, data)
    return judge(Evidence(data, probe, residual, passes, trained=False))


def test_a_flat_object_has_the_residual_of_the_forward_model(scan: ScanDataset) -> None:
    """[VER-001] of its best amplitude."""
    probe = probe_in_counts(scan, fit_scaling(scan), follow_offset=True)
    flat = [
        forward_residual(np.full((200, 200), a, np.complex64), (-60, -60), probe, scan, max_patterns=len(scan))
        for a in np.linspace(0.9, 1.1, 81)
    ]
    assert flat_residual(scan.counts(slice(None)), probe, ~scan.bad_pixels) == pytest.approx(min(flat), rel=1e-3)


def test_a_good_result_explains_the_data(scan: ScanDataset) -> None:
    """[VER-001] and no part of the scan is looked at."""
    found = after_passes(scan)
    assert found.explains is Explains.YES
    assert found.warning is None
    assert found.geometry is None
    assert found.noise_residual < found.residual < min(found.flat_residual, found.mean_residual)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factors", "flag"), [((1, -1), "--negate-x"), ((-1, -1), "--negate-y --negate-x"), ((0, 0), "--swap-axes")]
)
def test_wrong_axes_are_named_with_the_command_that_mends_them(
    scan: ScanDataset, factors: tuple[int, int], flag: str
) -> None:
    """[VER-002] [VER-004] passes fit wrong positions too, but not what they do not use."""
    positions = scan.positions * factors if any(factors) else scan.positions[:, ::-1]
    found = after_passes(replace(scan, positions=positions - positions.min(axis=0)))
    assert found.explained > 0.3  # so the residual alone would not say it
    assert found.explains is Explains.NO
    assert found.warning is not None
    assert "does not explain the data" in found.warning
    assert flag in found.warning
    assert "train" not in found.warning
    assert found.record["causes"] == list(found.causes)


def test_rows_that_ran_backwards_leave_more_than_patterns_that_agree(scan: ScanDataset) -> None:
    """[VER-008] Passes fit them well enough not to be refused, and no change of all positions mends them."""
    side = math.isqrt(len(scan))
    order = np.arange(len(scan)).reshape(side, side)
    order[1::2] = order[1::2, ::-1].copy()
    found = after_passes(replace(scan, positions=scan.positions[order.ravel()]), passes=8)
    assert found.explains is Explains.PARTLY
    assert found.explained > 0.4
    assert found.warning is not None
    assert "in part" in found.warning
    assert "rows that ran backwards" in found.warning
    assert not found.is_refusal
    assert after_passes(scan, passes=8).explains is Explains.YES


def test_shuffled_patterns_are_contradictions(scan: ScanDataset) -> None:
    """[VER-002]"""
    found = after_passes(replace(scan, positions=scan.positions[np.random.default_rng(1).permutation(len(scan))]))
    assert found.explains is Explains.NO
    assert "contradict" in found.causes[0]


def test_another_scans_probe_is_named(scan: ScanDataset) -> None:
    """[VER-004] the probe of the result is compared with that of the scan."""
    y, x = np.mgrid[:32, :32] - 15.5
    other = np.exp(-(x**2 + y**2) / 18 + 0.2j * (x**2 + y**2))[None].astype(np.complex64)
    probe = other * np.sqrt(fit_scaling(scan).mean_counts / (np.abs(other) ** 2).sum())
    found = epie(Patterns(scan), probe, passes=4)
    residual = forward_residual(found.object, found.frame.origin, probe, scan)
    verdict = judge(Evidence(scan, probe, residual))
    assert verdict.explains is Explains.NO
    assert any("--probe-source scan" in cause for cause in verdict.causes)


def test_a_network_that_learned_nothing_is_named(scan: ScanDataset) -> None:
    """[VER-004] when passes show that the scan is right."""
    probe = probe_in_counts(scan, fit_scaling(scan), follow_offset=True)
    flat = flat_residual(scan.counts(slice(None)), probe, ~scan.bad_pixels)
    verdict = judge(Evidence(scan, probe, flat))
    assert verdict.explains is Explains.NO
    assert "train longer" in verdict.causes[-1]
    assert "orient" not in " ".join(verdict.causes)


@pytest.mark.slow
def test_noise_that_hides_the_object_is_no_alarm() -> None:
    """[VER-003] [VER-005] nor is a vacuum."""
    weak = replace(scan_of(nphotons=300, amplitude=(0.97, 1), phase_rad=(-0.05, 0.05)), object_guess=None)
    vacuum = replace(scan_of(nphotons=1e4, amplitude=(1, 1), phase_rad=(0, 0)), object_guess=None)
    for data in (weak, vacuum):
        assert after_passes(data).explains is not Explains.NO


def test_nonsense_is_not_excused_by_noise(scan: ScanDataset) -> None:
    """[VER-003] [VER-002]"""
    probe = probe_in_counts(scan, fit_scaling(scan), follow_offset=True)
    for residual in (3.0, float("nan")):
        assert judge(Evidence(scan, probe, residual)).explains is Explains.NO


@pytest.mark.parametrize(
    ("kind", "dose", "step"),
    [(ObjectKind.POROUS, 3e2, 3.0), (ObjectKind.MIXTURE, 3e3, 6.0), (ObjectKind.STAR, 1e6, 5.0)],
)
def test_good_scans_raise_no_alarm(kind: ObjectKind, dose: float, step: float) -> None:
    """[VER-005] of other objects than the thresholds were chosen with."""
    data = scan_of(nphotons=dose, step_px=step, seed=90, object_kind=kind)
    assert after_passes(replace(data, object_guess=None)).explains is not Explains.NO


@pytest.mark.parametrize("seed", [2, 5])
def test_three_patterns_contradict_nothing(seed: int) -> None:
    """[VER-005] [INSP-007] Of 16 patterns those left out may lie at the edge, where a good scan predicts them badly."""
    small = scan_of(rows=4, cols=4, step_px=6.4, nphotons=1e7, seed=seed)
    found = after_passes(replace(small, object_guess=None), passes=2)
    assert found.geometry is not None
    assert found.geometry.given_residual > 1.2 * found.geometry.nothing_residual
    assert found.explains is Explains.YES


def learned_nothing(kind: ObjectKind, seed: int, *, trained: bool) -> Verdict:
    """The verdict on two passes from a network that gives a flat object."""
    data = scan_of(rows=7, cols=7, step_px=6.4, nphotons=6e6, object_kind=kind, seed=seed)
    probe = probe_in_counts(data, fit_scaling(data), follow_offset=True)
    residual = 0.99 * flat_residual(data.counts(slice(None)), probe, ~data.bad_pixels)
    return judge(Evidence(replace(data, object_guess=None), probe, residual, 2, trained=trained))


def test_a_short_training_is_not_taken_for_a_wrong_probe() -> None:
    """[VER-002] [VER-004] Two passes on poor patches leave more than passes that correct the probe, which is right."""
    solver, network = (learned_nothing(ObjectKind.TEXTURED, 3, trained=trained) for trained in (False, True))
    assert "the probe is not that of this scan" in solver.causes[0]
    assert "the probe is not" not in " ".join(network.causes)
    assert "train longer" in network.causes[0]


def test_a_short_training_is_named_where_nothing_else_is() -> None:
    """[VER-004] before the patterns are doubted."""
    for trained, words in ((True, "If the training was short"), (False, "none stands out")):
        assert words in learned_nothing(ObjectKind.POWER_LAW, 1, trained=trained).causes[-1]


def test_what_passes_cannot_predict_is_not_explained() -> None:
    """[VER-008] At random positions passes fit half of what can be explained."""
    scan = replace(scan_of(rows=12, cols=12, seed=3, nphotons=2e5, object_kind=ObjectKind.MIXTURE), object_guess=None)
    x, y = (np.random.default_rng(seed).uniform(-40, 40, len(scan)) for seed in (0, 1))
    found = after_passes(replace(scan, positions=np.stack([y, x], axis=1)))
    assert found.explained > 0.4
    assert found.explains is Explains.UNKNOWN
    assert found.warning is not None
    assert "do not predict" in found.warning
