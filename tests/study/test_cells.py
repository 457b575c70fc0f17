"""Cells of a study and their scans: specs/15-study.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ptychopinn.comparison.cells import Cell, Point, cells_of, check_simulation, scans_of
from ptychopinn.config import SimulationConfig
from ptychopinn.config.study import StudyConfig
from ptychopinn.data.io import read_scan
from ptychopinn.errors import ConfigError
from ptychopinn.geometry import split_positions

TINY = SimulationConfig(N=32, rows=5, cols=4)


def cell(**changes) -> Cell:
    point = {"photons": 1e5, "overlap": 0.6, "train_patterns": None, "gridsize": None}
    return Cell(Point(**{**point, **changes}), 1, 0)


def test_a_cell_for_every_combination() -> None:
    """[STUDY-001]"""
    config = StudyConfig(legs=("epie",), photons=(1e3, 1e4), train_patterns=(None, 9), seeds=(1, 2), repeats=3)
    cells = list(cells_of(config))
    assert len(set(cells)) == len(cells) == 2 * 2 * 2 * 3
    assert "photons 1000" in cells[0].name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": (1, 1)}, "seeds has a value twice"),
        ({"legs": ()}, "at least 1"),
        ({"percentiles": (80, 20)}, "smaller one first"),
        ({"photons": (0,)}, "greater than 0"),
    ],
)
def test_axes_that_make_no_sense(fields: dict, message: str) -> None:
    """[STUDY-001]"""
    with pytest.raises(ValidationError, match=message):
        StudyConfig(**{"legs": ("epie",), **fields})


@pytest.mark.parametrize("overlap", [0.0, 0.4, 0.8])
def test_the_parts_share_no_pixel(tmp_path: Path, overlap: float) -> None:
    """[STUDY-002] No window of one meets one of the other, and they are next to each other."""
    sources = scans_of(cell(overlap=overlap), TINY, tmp_path)
    train, test = (read_scan(sources[name].path) for name in ("train", "test"))
    assert len(train) == len(test) == 20
    (low, _), (high, _) = split_positions(train.positions, 32), split_positions(test.positions, 32)
    gap = high[:, 0].min() - (low[:, 0].max() + 32)
    assert 0 <= gap < 32
    np.testing.assert_array_equal(train.object_guess, test.object_guess)
    assert train.metadata.nphotons == pytest.approx(test.metadata.nphotons, rel=0.5)


def test_photons_and_seed_act(tmp_path: Path) -> None:
    """[STUDY-002] The same object under another dose; another seed is another object."""
    one, brighter = (read_scan(scans_of(cell(photons=p), TINY, tmp_path)["test"].path) for p in (1e4, 1e6))
    other = read_scan(scans_of(Cell(cell().point, 2, 0), TINY, tmp_path)["test"].path)
    np.testing.assert_array_equal(one.object_guess, brighter.object_guess)
    assert brighter.metadata.nphotons == pytest.approx(100 * one.metadata.nphotons, rel=0.05)
    assert one.object_guess is not None
    assert other.object_guess is not None
    assert not np.array_equal(one.object_guess[:50, :50], other.object_guess[:50, :50])


def test_fewer_training_patterns_overlap_as_all_do(tmp_path: Path) -> None:
    """[STUDY-002] They are taken from the middle; the test part stays as it is."""
    few, every = (scans_of(cell(train_patterns=n), TINY, tmp_path) for n in (6, None))
    assert few["test"] == every["test"]
    data = read_scan(few["train"].path)
    assert len(data) == 6
    assert np.ptp(data.positions, axis=0).max() < np.ptp(read_scan(every["train"].path).positions, axis=0).max()


def test_scans_are_kept(tmp_path: Path) -> None:
    """[STUDY-003]"""
    before = {name: s.path.stat().st_mtime_ns for name, s in scans_of(cell(), TINY, tmp_path).items()}
    after = {name: s.path.stat().st_mtime_ns for name, s in scans_of(cell(gridsize=2), TINY, tmp_path).items()}
    assert before == after


@pytest.mark.parametrize(
    "fields", [{"nphotons": 1e3}, {"overlap": 0.5}, {"step_px": 3.0}, {"seed": 1}, {"scan_kind": "spiral"},
               {"object_shape": (300, 300)}],
)  # fmt: skip
def test_what_the_study_itself_sets_is_refused(fields: dict) -> None:
    """[STUDY-002]"""
    with pytest.raises(ConfigError):
        check_simulation(SimulationConfig(**fields))
