"""Pty-chi as a solver: specs/07-reconstructor.md. Skipped where it, or the torchvision it needs, is not installed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.dataset import Measurement
from ptychopinn.metrics import align, forward_residual, scan_box, score
from ptychopinn.monitor import Monitor
from ptychopinn.reconstructor import Solver
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers import RPIE
from ptychopinn_ptychi.options import Engine, PtychiOptions
from ptychopinn_ptychi.plugin import ptychopinn_solvers

# Pty-chi reads a number off a tensor that has a gradient, of which PyTorch warns once.
pytestmark = pytest.mark.filterwarnings("default:Converting a tensor with requires_grad=True:UserWarning")


def test_listing_imports_nothing_heavy() -> None:
    """[PLUG-002]"""
    code = (
        "import ptychopinn_ptychi.plugin as p; p.ptychopinn_solvers(); "
        "import sys; print({'torch', 'ptychi'} & {*sys.modules})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.fixture
def solver_class():
    for module in ("torch", "torchvision", "ptychi"):
        pytest.importorskip(module, exc_type=ImportError)
    (spec,) = ptychopinn_solvers()
    return spec.load_class()


@pytest.mark.parametrize("engine", list(Engine))
def test_every_engine_finds_the_object(solver_class, engine: Engine) -> None:
    """[PLUG-011] Upright, in place, in the scale of the counts, as the core's own solver."""
    data = simulate_scan(SimulationConfig(N=32, rows=10, cols=10, object_kind="letter", seed=1))
    solver = solver_class(PtychiOptions(engine=engine, passes=40, batch_size=8, accelerator="cpu"))
    assert isinstance(solver, Solver)
    found = solver.reconstruct(data)
    assert data.object_guess is not None
    assert found.object.shape == data.object_guess.shape
    pair = align(data.object_guess, found.object, scan_box(data.positions, found.object.shape))
    own = align(data.object_guess, RPIE().reconstruct(data).object, scan_box(data.positions, found.object.shape))
    assert score(pair)["nrmse"] < 0.4  # ePIE is slow on sharp edges
    assert max(map(abs, pair.shift_px)) < 0.3
    assert abs(pair.factor) == pytest.approx(abs(own.factor), rel=0.05)
    assert forward_residual(found.object, (0, 0), found.probe, data) < 0.2


def test_progress_and_cancelling(solver_class) -> None:
    """[PLUG-011] What is there is returned."""
    data = simulate_scan(SimulationConfig(N=32, rows=4, cols=4, seed=1))
    seen = []
    monitor = Monitor(lambda event: (seen.append(event.done), monitor.cancel()))
    found = solver_class(PtychiOptions(passes=9, accelerator="cpu")).reconstruct(data, monitor=monitor)
    assert seen == [1]
    assert np.isfinite(found.object).all()


@pytest.mark.parametrize("engine", list(Engine))
def test_values_that_are_bad_in_single_patterns_do_not_matter(solver_class, engine: Engine) -> None:
    """[DATA-130] [PLUG-011] Whatever stands there; the measured values are explained as well as without them."""
    good = simulate_scan(SimulationConfig(N=32, rows=8, cols=8, object_kind="letter", seed=1, nphotons=1e5))
    masks = np.random.default_rng(0).random(good.patterns.shape) < 0.2
    solver = solver_class(PtychiOptions(engine=engine, passes=20, batch_size=8, accelerator="cpu"))
    found = [solver.reconstruct(good)]
    for value in (0.0, 1e4):
        counts = np.where(masks, np.float32(value), good.counts(slice(None)))
        wrong = replace(good, patterns=counts, measurement=Measurement.COUNTS, counts_per_unit=1.0)
        found.append(solver.reconstruct(replace(wrong, bad_values=BadValues.of_masks(masks)).as_checked()))
    np.testing.assert_array_equal(found[1].object, found[2].object)
    without, with_bad = (forward_residual(one.object, (0, 0), one.probe, good) for one in found[:2])
    assert with_bad < 1.15 * without
