"""Trials of passes that other patterns judge. Requirements: specs/13-refinement.md, specs/22-reconstruct.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.subsampling import split_every
from ptychopinn.errors import Cancelled
from ptychopinn.geometry import Canvas, Frame
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan, simulated_truth
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.solvers.options import PassOptions
from ptychopinn.solvers.pass_trial import PassTrial

CONFIG = SimulationConfig(N=32, rows=9, cols=9, step_px=3.0, nphotons=1e6, flux_deviation=0.2, seed=2)
PASSES = 4


def trial(monitor: Monitor = NULL_MONITOR) -> tuple[PassTrial, ScanModel]:
    """Of a beam that flickers, from the true object and model without flux."""
    scan = simulate_scan(CONFIG)
    assert scan.object_guess is not None
    start = Canvas(scan.object_guess, Frame(scan.object_guess.shape))
    used, judges = split_every(np.arange(len(scan)), 8)
    made = PassTrial(Patterns(scan), used, judges, start, PASSES, monitor=monitor)
    return made, ScanModel(scan.probe, scan.positions)


def test_the_light_of_judging_patterns_is_fitted_also_where_it_was_known() -> None:
    """[AUTO-002] [REFINE-025] and without free flux that of the model stays."""
    made, model = trial()
    flux = simulated_truth(CONFIG).flux
    assert flux is not None
    known = replace(model, flux=(flux / flux.mean()).astype(np.float32))
    held, free = (PassOptions(rpie_schedule(PASSES), update_flux=update) for update in (False, True))
    without = made.shares(model, held).sum()
    for better in (made.shares(model, free), made.shares(known, free), made.shares(known, held)):
        assert better.shape == made.judges.shape
        assert better.sum() < 0.2 * without


def test_positions_of_judging_patterns_are_fitted() -> None:
    """[AUTO-002] and the start is not changed."""
    made, model = trial()
    before = made.start.array.copy()
    off = replace(model, positions=model.positions + np.random.default_rng(0).normal(0, 0.7, model.positions.shape))
    held, free = (PassOptions(rpie_schedule(PASSES), update_positions=p, update_flux=True) for p in (False, True))
    assert made.shares(off, free).sum() < 0.6 * made.shares(off, held).sum()
    np.testing.assert_array_equal(made.start.array, before)


def test_a_cancelled_trial_has_no_verdict() -> None:
    """[AUTO-003] [REFINE-007]"""
    monitor = Monitor()
    monitor.cancel()
    made, model = trial(monitor)
    with pytest.raises(Cancelled):
        made.shares(model, PassOptions(rpie_schedule(PASSES)))


def test_every_so_manyth_index_is_split_off() -> None:
    """[REFINE-013]"""
    others, picked = split_every(np.arange(10, 22), 5)
    np.testing.assert_array_equal(picked, [12, 17])
    np.testing.assert_array_equal(others, [10, 11, 13, 14, 15, 16, 18, 19, 20, 21])
