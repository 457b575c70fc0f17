"""Ambiguities are removed, in agreement with the published definition of the scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import shift as spline_shift

from ptychopinn.errors import DataError
from ptychopinn.metrics import ScanBox, align, linear_phase, ramp_of, remove_linear_phase, scan_box, score

BOX = ScanBox(12, 84, 10, 78)


def moved(obj, shift_px):
    return spline_shift(obj.real, shift_px, order=5) + 1j * spline_shift(obj.imag, shift_px, order=5)


def test_box_of_scan_positions():
    """[MET-001] The box is the extent of the positions, 4 px inside, within the array."""
    positions = np.array([[10.7, 90.2], [60.9, 20.6], [30.0, 50.0]])
    assert scan_box(positions, (100, 100)) == ScanBox(14, 56, 24, 86)
    assert scan_box(positions, (50, 60), margin=0) == ScanBox(10, 50, 20, 60)
    assert scan_box(positions, (100, 100)).shape == (42, 62)


@pytest.mark.parametrize(
    "positions",
    [np.zeros((0, 2)), np.full((1, 2), 50.0), np.array([[3.0, 3.0], [9.0, 80.0]]), np.full((2, 2), -90.0)],
)
def test_box_without_room_is_empty(positions):
    """[MET-001] One position, none, or a narrow scan: an empty box, not an error and not a wrapped index."""
    box = scan_box(positions, (100, 100))
    assert box.is_empty
    assert np.zeros((100, 100))[box.slices].size == 0


def test_box_refuses_positions_that_are_not_finite():
    with pytest.raises(DataError, match="not finite"):
        scan_box(np.array([[np.nan, 1.0]]), (10, 10))


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shift=st.tuples(st.integers(-100, 100), st.integers(-100, 100)),
    ramp=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    factor=st.tuples(st.floats(0.1, 100), st.floats(-3, 3)),
)
def test_ambiguities_are_found(make_object, shift, ramp, factor):
    """[MET-002] Shift, ramp and complex factor of a copy are found and removed."""
    obj = make_object((128, 120), blur_px=1.0)
    shift_px = np.array(shift) / 20
    changed = remove_linear_phase(moved(obj, -shift_px), -np.array(ramp)) * factor[0] * np.exp(1j * factor[1])
    aligned = align(obj, changed, BOX)
    assert aligned.registered
    assert aligned.shift_px == pytest.approx(shift_px, abs=0.15)
    assert aligned.ramp_rad_per_px == pytest.approx(ramp, abs=2e-4)
    assert abs(aligned.factor) == pytest.approx(1 / factor[0], rel=0.02)
    error = np.linalg.norm(aligned.reconstruction - aligned.reference) / np.linalg.norm(aligned.reference)
    assert error < 0.05


def test_reported_ambiguities_give_the_aligned_picture(make_object):
    """[MET-002] Shift, then ramp from the first pixel of the box, then factor: the aligned reconstruction."""
    obj = make_object((128, 120), blur_px=1.5)
    changed = remove_linear_phase(moved(obj, (1.5, -2.0)), np.array([0.11, -0.07])) * 2j
    aligned = align(obj, changed, BOX)
    again = moved(changed, aligned.shift_px)[BOX.slices]
    again = remove_linear_phase(again, np.array(aligned.ramp_rad_per_px)) * aligned.factor
    assert np.abs(again - aligned.reconstruction).max() < 0.02


@pytest.mark.parametrize(("shape", "kind"), [((103, 85), "larger and smaller"), ((96, 88), "not finite")])
def test_agrees_with_the_published_definition(tmp_path, make_object, shape, kind):
    """[MET-003] Every figure of the independent scoring tool comes out the same."""
    tool = Path(__file__).resolve().parents[2] / "../shared/tools/score.py"
    if not tool.exists():
        pytest.skip("the independent scoring tool is not here (../shared/tools/score.py)")
    rng = np.random.default_rng(5)
    reference = make_object()
    changed = reference + 0.15 * make_object(seed=1, blur_px=1.0) * (1 + 2j)
    changed = remove_linear_phase(moved(changed, (1.3, -2.45)), np.array([0.05, -0.02])) * (0.3 - 2j)
    reconstruction = np.ones(shape, complex)
    height, width = (min(a, b) for a, b in zip(shape, reference.shape, strict=True))
    reconstruction[:height, :width] = changed[:height, :width]
    if kind == "not finite":
        reconstruction[40:43, 50] = np.nan
        reconstruction[60, 20] = np.inf
    positions = rng.uniform((8.3, 6.2), (86.4, 80.9), size=(40, 2))
    np.savez(tmp_path / "scan.npz", ycoords=positions[:, 0], xcoords=positions[:, 1])
    np.savez(tmp_path / "reference.npz", object=reference)
    with h5py.File(tmp_path / "product.h5", "w") as file:
        file["object"] = reconstruction[None]
    command = [sys.executable, str(tool), "product.h5", "reference.npz", "scan.npz"]
    wanted = json.loads(subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout)

    aligned = align(reference, reconstruction, scan_box(positions, reference.shape))
    figures = score(aligned)
    assert aligned.shift_px == pytest.approx(wanted.pop("shift_px"), abs=1e-6)
    assert {key: figures[key] for key in wanted} == pytest.approx(wanted, abs=1e-6)
    assert aligned.not_finite == (4 if kind == "not finite" else 0)


def test_only_one_factor_is_removed_on_request(make_object):
    """[MET-004] Without ramp and registration, a ramp and a shift stay."""
    obj = make_object()
    changed = remove_linear_phase(moved(obj, (2.0, 0.0)), np.array([0.05, 0.0])) * 3j
    aligned = align(obj, changed, BOX, remove_ramp=False, register=False)
    assert aligned.shift_px == (0, 0)
    assert aligned.ramp_rad_per_px == (0, 0)
    assert not aligned.registered
    assert np.allclose(aligned.reconstruction, changed[BOX.slices] * aligned.factor)
    # the factor is the least-squares one: what is left is orthogonal to the picture
    assert abs(np.vdot(changed[BOX.slices], aligned.reference - aligned.reconstruction)) < 1e-9
    assert align(obj, obj * 3j, BOX, remove_ramp=False, register=False).factor == pytest.approx(1 / 3j)


def test_a_shift_beyond_the_limit_is_not_applied(make_object):
    """[MET-002] A registration of more than 40 px has failed: it is told and not applied."""
    obj = make_object((160, 160), blur_px=1.0)
    rolled = np.roll(obj, 60, axis=0)
    box = ScanBox(5, 155, 5, 155)
    aligned = align(obj, rolled, box)
    assert not aligned.registered
    assert max(abs(v) for v in aligned.shift_px) > 40
    # the ramp and the factor still are removed, the picture has not moved
    turned = remove_linear_phase(rolled[box.slices], np.array(aligned.ramp_rad_per_px)) * aligned.factor
    assert np.allclose(turned, aligned.reconstruction)


@pytest.mark.parametrize("value", [1.0, 0.0, np.nan, 1e-30])
@pytest.mark.filterwarnings("error")
def test_flat_reconstruction_gives_finite_figures(make_object, value):
    """[MET-005] A collapsed, empty or not finite reconstruction has bad figures, and no correlation."""
    aligned = align(make_object(), np.full((96, 88), value, complex), BOX)
    figures = score(aligned)
    assert all(np.isfinite(v) or name in figures.missing for name, v in figures.items()), figures
    assert all(f"{quantity}_{key}" in figures.missing for quantity in ("amp", "phase") for key in ("corr", "frc50"))
    assert figures["amp_ssim"] < 0.5
    assert not aligned.registered
    assert aligned.not_finite == (72 * 68 if np.isnan(value) else 0)
    assert figures["nrmse"] > 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": ScanBox(0, 0, 0, 0)}, "box of scan positions is 0 x 0"),
        ({"box": ScanBox(0, 10, 0, 50)}, "at least 11 x 11"),
        ({"box": ScanBox(50, 120, 0, 50)}, "share one frame"),
        ({"box": ScanBox(-5, 50, 0, 50)}, "share one frame"),
        ({"reference": np.full((96, 88), np.nan, complex)}, "not finite inside"),
        ({"reference": np.zeros((96, 88), complex)}, "reference is zero"),
        ({"reconstruction": np.ones((2, 96, 88), complex)}, r"reconstruction has the shape \(2, 96, 88\)"),
        ({"reconstruction": np.ones((0, 88), complex)}, "reconstruction has the shape"),
        ({"reconstruction": np.full((96, 88), "a")}, "dtype <U1"),
    ],
)
def test_refusals_name_what_is_wrong(make_object, change, message):
    """[MET-006] What cannot be compared is refused."""
    arguments = {"reference": make_object(), "reconstruction": make_object(), "box": BOX} | change
    with pytest.raises(DataError, match=message):
        align(**arguments)


def test_ramp_of_an_object_alone(make_object):
    """[MET-002] A ramp is found without a reference, and nothing is made of an empty product."""
    obj = remove_linear_phase(make_object(), np.array([-0.31, 0.12]))
    assert ramp_of(obj) == pytest.approx((0.31, -0.12), abs=5e-3)
    assert linear_phase(np.zeros((20, 20), complex)) == pytest.approx((0, 0))
