"""Exposures during which the stage moves. Requirements: specs/13-refinement.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from array_libraries import StrictLibrary
from pydantic import ValidationError

from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.exposure import Exposure
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.refinement import Refinement, RefineOptions, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers.epie import rpie_schedule

FLY_PX = 8.0


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    config = SimulationConfig(rows=9, cols=9, step_px=5.0, nphotons=1e6, object_kind="mixture", seed=7, fly_px=FLY_PX)
    return simulate_scan(config)


def model(scan: ScanDataset, *, moves: bool) -> ScanModel:
    return ScanModel(scan.probe, scan.positions, motion_px=(0.0, FLY_PX) if moves else None)


def refine_from_flat(scan: ScanDataset, given: ScanModel, **options: Any) -> Refinement:
    assert scan.object_guess is not None
    frame = Frame(scan.object_guess.shape)
    start = Canvas(flat_object(frame), frame)
    return refine(Patterns(scan), given, start, RefineOptions(12, schedule=rpie_schedule(12), **options))


def error(found: Refinement, scan: ScanDataset) -> float:
    assert scan.object_guess is not None
    box = scan_box(scan.positions, scan.object_guess.shape)
    return float(score(align(scan.object_guess, found.object, box))["nrmse"])


def test_places_keep_the_energy_and_gather_is_the_adjoint_of_spread() -> None:
    """[REFINE-026] in a library without NumPy's extras too."""
    rng = np.random.default_rng(3)
    modes, spectrum = (
        (rng.normal(size=(k, 16, 16)) + 1j * rng.normal(size=(k, 16, 16))).astype(np.complex64) for k in (2, 6)
    )
    library = StrictLibrary()
    exposure = Exposure((3.0, -2.0), 16, library)
    assert exposure.places == 3
    spread = library.to_host(exposure.spread(library.from_host(modes)))
    assert np.linalg.norm(spread) == pytest.approx(np.linalg.norm(modes), rel=0.02)  # the Nyquist row has no direction
    gathered = library.to_host(exposure.gather(library.from_host(spectrum)))
    there = np.vdot(np.fft.fft2(spread), spectrum)
    assert there == pytest.approx(np.vdot(np.fft.fft2(modes), gathered), rel=1e-4)


def test_the_true_object_explains_a_fly_scan_only_with_its_motion(scan: ScanDataset) -> None:
    """[REFINE-026]: simulated at five places, explained by four to the noise."""
    assert scan.object_guess is not None
    canvas = Canvas(scan.object_guess, Frame(scan.object_guess.shape))
    still, moving = (ForwardResidual(model(scan, moves=m), Patterns(scan))(canvas) for m in (False, True))
    assert moving < 0.047 < 1.2 * moving < still


@pytest.mark.slow
@pytest.mark.parametrize("update_probe", [False, True])
def test_passes_find_the_object_of_a_fly_scan(scan: ScanDataset, update_probe: bool) -> None:
    """[REFINE-026]: with the probe held or free, whose modes are those at rest."""
    still, moving = (refine_from_flat(scan, model(scan, moves=m), update_probe=update_probe) for m in (False, True))
    assert error(moving, scan) < 0.8 * error(still, scan)
    assert moving.model.probe.shape == scan.probe.shape
    assert moving.model.motion_px == (0.0, FLY_PX)


def test_the_sign_of_the_motion_has_no_effect(scan: ScanDataset) -> None:
    """[REFINE-026]."""
    assert scan.object_guess is not None
    canvas = Canvas(scan.object_guess, Frame(scan.object_guess.shape))
    given = model(scan, moves=True)
    there, back = (
        ForwardResidual(replace(given, motion_px=(0.0, sign * FLY_PX)), Patterns(scan))(canvas) for sign in (1, -1)
    )
    assert there == pytest.approx(back, rel=1e-5)


def test_motion_without_passes_is_refused() -> None:
    """[REFINE-026]."""
    with pytest.raises(ValidationError, match="refine_fly has no effect without refine"):
        InferConfig(refine=0, refine_fly=(0.0, 4.0))
