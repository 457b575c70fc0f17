"""Pty-chi as a solver: specs/07-reconstructor.md. Skipped where it, or the torchvision it needs, is not installed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.metrics import align, forward_residual, scan_box, score
from ptychopinn.monitor import Monitor
from ptychopinn.reconstructor import Solver
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers import RPIE
from ptychopinn_ptychi.options import Engine, PtychiOptions
from ptychopinn_ptychi.plugin import ptychopinn_solvers


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
