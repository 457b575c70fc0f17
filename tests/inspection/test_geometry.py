"""Which axes, signs, scale and order fit: specs/21-verdict.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hardening.kit.planted import drawn_scans

from ptychopinn.config import SimulationConfig
from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.config.simulation import ObjectKind
from ptychopinn.data.convert import convert_scan
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.inspection import (
    Agreement,
    Change,
    check_geometry,
    check_geometry_quickly,
    check_geometry_stepwise,
    geometry,
)
from ptychopinn.inspection.changes import ORIENTATIONS, Orientation
from ptychopinn.simulate import simulate_scan


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    config = SimulationConfig(N=32, rows=11, cols=11, seed=4, nphotons=1e5, object_kind=ObjectKind.CELLS)
    return replace(simulate_scan(config), object_guess=None)


def test_positions_are_turned_about_their_mean() -> None:
    positions = np.array([[0.0, 10.0], [2.0, 14.0], [4.0, 12.0]])
    turned = Orientation(exchange=True, negate_y=True).of_positions(positions)
    np.testing.assert_allclose(turned - turned.mean(axis=0), [[2, -2], [-2, 0], [0, 2]])
    np.testing.assert_allclose(turned.mean(axis=0), positions.mean(axis=0))


@pytest.mark.parametrize("one", ORIENTATIONS)
def test_patterns_keep_the_place_of_dc(one: Orientation) -> None:
    pattern = np.zeros((1, 8, 8))
    pattern[0, 4, 4] = 1
    assert one.of_patterns(pattern)[0, 4, 4] == 1
    marked = np.zeros((1, 8, 8))
    marked[0, 6, 5] = 1  # 2 down and 1 to the right of DC
    (place,) = np.argwhere(one.of_patterns(marked)[0])
    y, x = (1, 2) if one.exchange else (2, 1)
    assert tuple(place - 4) == (-y if one.negate_y else y, -x if one.negate_x else x)


def test_a_scan_that_agrees_is_left_alone(scan: ScanDataset) -> None:
    """[INSP-001]"""
    for check in (check_geometry, check_geometry_quickly):
        found = check(scan)
        assert found is not None
        assert (found.agreement, found.best) == (Agreement.AS_GIVEN, Change())


@pytest.mark.slow
@pytest.mark.parametrize(
    "planted",
    [Orientation(negate_x=True), Orientation(negate_y=True), Orientation(True), Orientation(True, True, False)],
    ids=str,
)
def test_planted_orientations_are_found_with_the_flags_that_mend_them(scan: ScanDataset, planted: Orientation) -> None:
    """[INSP-001] [INSP-002]"""
    wrong = replace(scan, positions=planted.of_positions(scan.positions))
    for check in (check_geometry, check_geometry_quickly):
        found = check(wrong)
        assert found is not None
        assert found.agreement is Agreement.CHANGED
        mended = found.best.of_positions(wrong.positions)
        np.testing.assert_allclose(mended, scan.positions, atol=1e-9)
        assert found.best.flags
        assert found.best.remedy == "ptychopinn convert SCAN -o NEW.npz " + " ".join(found.best.flags)


def test_turned_patterns_are_mended_by_convert(scan: ScanDataset, tmp_path: Path) -> None:
    """[INSP-002] The command of the remedy does what the change does."""
    change = Change(patterns=Orientation(exchange=True, negate_y=True))
    assert change.remedy == "ptychopinn convert SCAN -o NEW.npz --transpose --flip-y --no-turn-probe"
    write_scan(tmp_path / "scan.npz", scan)
    steps = ConversionOptions(transpose=True, flip_y=True, turn_probe=False)
    mended = convert_scan(tmp_path / "scan.npz", tmp_path / "mended.npz", conversion=steps)
    np.testing.assert_allclose(
        mended.counts(slice(None)), change.patterns.of_patterns(scan.counts(slice(None))), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(mended.probe, scan.probe)


def test_a_scale_is_found_and_mended(scan: ScanDataset) -> None:
    """[INSP-002]"""
    found = check_geometry(replace(scan, positions=Change(scale=1.4).of_positions(scan.positions)))
    assert found is not None
    assert found.best.scale == pytest.approx(1 / 1.4, rel=0.08)
    assert f"--scale-positions {found.best.scale:.3g}" in found.best.remedy


def test_the_conclusion_is_first_where_a_smaller_scale_fits_a_little_better(scan: ScanDataset) -> None:
    """[INSP-004] As it does where the given steps are a little too long."""
    found = check_geometry(replace(scan, positions=Change(scale=1.03).of_positions(scan.positions)))
    assert found is not None
    first, *others = found.trials
    assert first.change == found.best == Change()
    assert min(one.residual for one in others) < first.residual
    assert [one.residual for one in others] == sorted(one.residual for one in others)


def test_an_offset_in_the_list_is_found(scan: ScanDataset) -> None:
    """[INSP-001]"""
    found = check_geometry(replace(scan, positions=np.roll(scan.positions, 1, axis=0)))
    assert found is not None
    assert found.best.offset == -1
    assert "--roll-positions -1" in found.best.remedy


def test_shuffled_patterns_contradict_each_other(scan: ScanDataset) -> None:
    """[VER-002] but the quick look does not say so: it is too coarse."""
    wrong = replace(scan, positions=scan.positions[np.random.default_rng(0).permutation(len(scan))])
    found, look = check_geometry(wrong), check_geometry_quickly(wrong)
    assert found is not None
    assert look is not None
    assert (found.agreement, look.agreement) == (Agreement.NONE, Agreement.UNKNOWN)


def test_what_noise_hides_cannot_be_told() -> None:
    """[INSP-003]"""
    config = SimulationConfig(N=32, rows=9, cols=9, nphotons=1e3, amplitude=(0.98, 1), phase_rad=(-0.02, 0.02))
    found = check_geometry(replace(simulate_scan(config), object_guess=None))
    assert found is not None
    assert found.agreement is Agreement.UNKNOWN
    assert "cannot be told" in found.sentence


def test_too_small_scans_are_not_checked(scan: ScanDataset) -> None:
    assert check_geometry(scan.select(np.arange(15))) is None
    assert check_geometry_quickly(replace(scan, positions=scan.positions * 1e-6)) is None


def test_amplitudes_and_bad_pixels_do_not_matter(scan: ScanDataset) -> None:
    """[INSP-001]"""
    bad = np.zeros((32, 32), bool)
    bad[5, 7] = bad[16, 20] = True
    roots = np.sqrt(scan.counts(slice(None)))
    roots[:, bad] = 9e4
    found = check_geometry(replace(scan, patterns=roots, measurement=Measurement.AMPLITUDE, bad_pixels=bad))
    assert found is not None
    assert found.agreement is Agreement.AS_GIVEN


def test_patterns_without_light_are_not_checked(scan: ScanDataset) -> None:
    counts = np.zeros(scan.patterns.shape, np.float32)
    counts[3, 16, 16] = 1
    assert check_geometry(replace(scan, patterns=counts)) is None


@pytest.mark.parametrize(
    ("settings", "is_scaled"),
    [
        ({"rows": 7, "cols": 5, "seed": 20118, "object_kind": "mixture"}, False),
        ({"rows": 5, "cols": 7, "seed": 4174, "object_kind": "porous", "phase_rad": (-0.5, 0.5)}, True),
    ],
)
def test_little_overlap_is_no_contradiction(settings: dict[str, Any], is_scaled: bool) -> None:
    """[INSP-007] What is predicted badly for want of overlap cannot be told, nor what smaller steps make better."""
    default = {"N": 32, "overlap": 0.3, "nphotons": 1e7, "scan_kind": "raster"}
    config = SimulationConfig.model_validate(default | settings)
    found = check_geometry(replace(simulate_scan(config), object_guess=None))
    assert found is not None
    assert found.given_residual > found.nothing_residual
    smaller = [one.residual for one in found.trials if one.change.scale < 1]
    assert (min(smaller) < 0.9 * found.nothing_residual) == is_scaled
    assert found.agreement is Agreement.UNKNOWN


def test_little_overlap_is_no_wrong_orientation() -> None:
    """[INSP-007] Seven by seven patterns of a strong object seemed to be explained better with both axes negated."""
    strong = {"amplitude": (0.24, 1.0), "phase_rad": (-1.267, 1.267)}
    default = {"N": 32, "rows": 7, "cols": 7, "scan_kind": "raster", "object_kind": "porous", "nphotons": 1e7}
    config = SimulationConfig.model_validate(default | strong | {"overlap": 0.28532565455618, "seed": 20191})
    found = check_geometry(replace(simulate_scan(config), object_guess=None))
    assert found is not None
    assert not found.best.is_none
    assert found.agreement is Agreement.UNKNOWN


def test_one_of_many_changes_is_no_better_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """[INSP-003] Two hundred photons: some change may seem better, here by one standard error."""
    monkeypatch.setattr(geometry, "_SURE", 1.0)
    _, scan = next(drawn_scans(3023, 1))
    found = check_geometry_stepwise(replace(scan, object_guess=None))
    assert found is not None
    assert not found.best.is_none
    assert found.agreement is Agreement.UNKNOWN
