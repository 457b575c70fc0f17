"""Modes that are added to a probe while they pay. Requirements: specs/13-refinement.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from array_libraries import StrictLibrary
from pydantic import ValidationError

from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.config.infer import Background
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.monitor import Monitor
from ptychopinn.refinement import RefineOptions, refine
from ptychopinn.refinement.modes import add_mode, choose_probe_modes
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.typing import ComplexArray


def scan(modes: int, **changes: Any) -> ScanDataset:
    config = {"N": 64, "rows": 9, "cols": 9, "step_px": 5.0, "nphotons": 1e6, "object_kind": "mixture", "seed": 7}
    return simulate_scan(SimulationConfig(**(config | {"probe_modes": modes} | changes)))


def flat(scan: ScanDataset) -> Canvas:
    assert scan.object_guess is not None
    frame = Frame(scan.object_guess.shape)
    return Canvas(flat_object(frame), frame)


def one_mode(scan: ScanDataset) -> ScanModel:
    """The strongest mode of the true probe, with all of its energy."""
    first = scan.probe[:1]
    return ScanModel(first * np.float32(np.linalg.norm(scan.probe) / np.linalg.norm(first)), scan.positions)


def choose_modes(scan: ScanDataset, most: int = 5, **options: Any) -> ComplexArray | None:
    asked = RefineOptions(8, update_probe=True, modes=most, **options)
    return choose_probe_modes(Patterns(scan), one_mode(scan), flat(scan), asked)


def error(found: ComplexArray, scan: ScanDataset) -> float:
    assert scan.object_guess is not None
    box = scan_box(scan.positions, scan.object_guess.shape)
    return float(score(align(scan.object_guess, found, box))["nrmse"])


def test_a_new_mode_is_orthogonal_and_takes_little() -> None:
    """[REFINE-025] for as many as are allowed."""
    probe = one_mode(scan(1, rows=2, cols=2)).probe
    energy = np.linalg.norm(probe) ** 2
    for count in range(2, 9):
        probe = add_mode(probe)
        assert probe.shape[0] == count
        assert np.linalg.norm(probe) ** 2 == pytest.approx(energy, rel=1e-4)
        flat_modes = probe.reshape(count, -1)
        overlaps = np.abs(flat_modes @ flat_modes.conj().T)
        assert (overlaps - np.diag(np.diag(overlaps))).max() < 1e-3 * energy


@pytest.mark.slow
@pytest.mark.parametrize("modes", [2, 3])
def test_modes_are_added_while_they_pay(modes: int) -> None:
    """[REFINE-025] and the object comes out as with the true modes."""
    data = scan(modes)
    options = RefineOptions(10, update_probe=True, schedule=rpie_schedule(10))
    found = refine(Patterns(data), one_mode(data), flat(data), replace(options, modes=5))
    held = refine(Patterns(data), one_mode(data), flat(data), options)
    assert modes <= found.model.probe.shape[0] < 5
    assert np.linalg.norm(found.model.probe) == pytest.approx(np.linalg.norm(data.probe), rel=1e-4)
    assert error(found.object, data) < 0.6 * error(held.object, data)
    assert found.summary.residual_after < 0.7 * held.summary.residual_after
    assert found.summary.residual_before == pytest.approx(held.summary.residual_before, rel=1e-5)


def test_no_mode_is_added_where_one_explains_all() -> None:
    """[REFINE-025] nor more than are allowed, nor in a scan that is too small to hold patterns out."""
    assert choose_modes(scan(1)) is None
    assert choose_modes(scan(1, nphotons=3e3)) is None
    two = choose_modes(scan(3), most=2)
    assert two is not None
    assert len(two) == 2
    assert choose_modes(scan(3, rows=5, cols=5)) is None


def test_a_background_that_is_fitted_is_not_taken_for_a_mode() -> None:
    """[REFINE-025] but one that is not may be."""
    hazy = scan(1, background_share=0.03)
    assert choose_modes(hazy, update_background=Background.SMOOTH) is None
    assert choose_modes(hazy) is not None


def test_a_flickering_beam_that_is_fitted_is_not_taken_for_a_mode() -> None:
    """[REFINE-025]"""
    flickering = scan(2, flux_deviation=0.2, seed=3)
    found = choose_modes(flickering, update_flux=True)
    assert found is not None
    assert 2 <= len(found) <= 3


def test_modes_that_passes_do_not_need_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """[REFINE-001] [REFINE-025] The result is never worse than the start with the given probe."""
    data = scan(1, rows=5, cols=5)
    assert data.object_guess is not None
    start = Canvas(data.object_guess, Frame(data.object_guess.shape))
    model, options = one_mode(data), RefineOptions(1, update_probe=True, modes=5)
    spoiled = add_mode(add_mode(model.probe))
    monkeypatch.setattr("ptychopinn.refinement.passes.choose_probe_modes", lambda *args, **rest: spoiled)
    found = refine(Patterns(data), model, start, options)
    assert found.model.probe.shape[0] == 1
    assert found.summary.residual_after <= found.summary.residual_before


def test_another_library_chooses_the_same() -> None:
    """[ARR-005] [REFINE-025]"""
    data, library = scan(2), StrictLibrary(1 << 30)
    start, model = flat(data), one_mode(data)
    there = Canvas(library.from_host(start.array), start.frame, library)
    model = replace(model, probe=library.from_host(model.probe))
    options = RefineOptions(4, update_probe=True, modes=2)
    found, expected = choose_probe_modes(Patterns(data, library), model, there, options), choose_modes(data, most=2)
    assert found is not None
    assert expected is not None
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_a_cancelled_choice_keeps_the_probe() -> None:
    """[REFINE-007] [REFINE-025]"""
    data, monitor = scan(3), Monitor()
    monitor.cancel()
    options = RefineOptions(4, update_probe=True, modes=5)
    assert choose_probe_modes(Patterns(data), one_mode(data), flat(data), options, monitor=monitor) is None
    found = refine(Patterns(data), one_mode(data), flat(data), options, monitor=monitor)
    np.testing.assert_array_equal(found.model.probe, one_mode(data).probe)


def test_modes_without_a_free_probe_are_refused() -> None:
    """[REFINE-025]"""
    with pytest.raises(ValidationError, match="refine_modes has no effect without refine_probe"):
        InferConfig(refine=3, refine_modes=3)
    assert InferConfig(refine=3, refine_probe=True, refine_modes=3).refine_modes == 3


def test_a_canvas_moves_to_another_frame() -> None:
    """[REFINE-004] with 1 outside of its own, and without a change of its own array."""
    canvas = Canvas(np.full((2, 3), 2j, np.complex64), Frame((2, 3), (4, 5)))
    moved = canvas.moved_to(Frame((3, 3), (5, 4)))
    np.testing.assert_array_equal(moved.array, [[1, 2j, 2j], [1, 1, 1], [1, 1, 1]])
    moved.array[:] = 0
    assert (replace(canvas).array == 2j).all()
