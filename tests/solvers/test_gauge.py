"""Where a refined probe is put, and whether it is kept. Requirements: specs/10-training.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.interpolation import shift_probe
from ptychopinn.monitor import Monitor
from ptychopinn.simulate import simulate_probe, simulate_scan
from ptychopinn.solvers import choose_probe, register_probe

FLAT = np.ones((32, 32))


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=32, rows=10, cols=10, seed=3))


@pytest.mark.parametrize("modes", [1, 3])
def test_a_moved_probe_comes_back(modes: int) -> None:
    """[PROBE-001] by whole pixels and a fraction, modes mixed and turned by a phase."""
    probe = simulate_probe("defocused", 64, photons=1e4, modes=modes)
    moved = np.roll(shift_probe(probe, np.array([[0.3, -0.2]]))[0], (5, -7), axis=(1, 2))
    mixed = np.exp(0.7j) * moved[::-1]
    back = register_probe(mixed, probe)[::-1]
    back = back * np.exp(-1j * np.angle(np.vdot(probe, back)))
    assert np.linalg.norm(back - probe) < 2e-3 * np.linalg.norm(probe)


def test_a_right_probe_is_kept(scan: ScanDataset) -> None:
    """[PROBE-001] freeing it lowers the residual a little, by fitting the noise: not enough to take it."""
    probe = probe_in_counts(scan, fit_scaling(scan), follow_offset=False)
    choice = choose_probe(Patterns(scan), probe, FLAT, 5)
    assert not choice.refined
    assert 0.9 * choice.residual_guess <= choice.residual_refined
    np.testing.assert_allclose(choice.probe, probe, rtol=1e-6)


def test_a_wrong_probe_is_refined(scan: ScanDataset) -> None:
    """[PROBE-001] one with the wrong curvature is replaced by one that is nearer to the truth."""
    r2 = ((np.arange(32) - 15.5) ** 2)[:, None] + (np.arange(32) - 15.5) ** 2
    wrong = replace(scan, probe=scan.probe * np.exp(0.04j * r2))
    guess = probe_in_counts(wrong, fit_scaling(wrong), follow_offset=False)
    choice = choose_probe(Patterns(wrong), guess, FLAT, 10)
    assert choice.refined
    assert choice.residual_refined < 0.9 * choice.residual_guess
    truth = probe_in_counts(scan, fit_scaling(scan), follow_offset=False)

    def likeness(probe: np.ndarray) -> float:
        placed = register_probe(probe, truth)
        return float(np.abs(np.vdot(truth, placed)) / (np.linalg.norm(truth) * np.linalg.norm(placed)))

    assert likeness(choice.probe) > likeness(guess)


def test_cancelled_the_probe_stays(scan: ScanDataset) -> None:
    """[PROBE-001] a cancelled refinement changes nothing."""
    probe = probe_in_counts(scan, fit_scaling(scan), follow_offset=False)
    monitor = Monitor()
    monitor.cancel()
    choice = choose_probe(Patterns(scan), probe, FLAT, 5, monitor=monitor)
    assert not choice.refined
    np.testing.assert_allclose(choice.probe, probe, rtol=1e-6)
