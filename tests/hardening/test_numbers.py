"""Odd numbers: every loss and result is finite, and warnings name the patterns. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hardening.kit.job_runner import JobRunner, check_whole

from ptychopinn.bundle import read_bundle
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import DataError
from ptychopinn.product import read_product

Arrays = dict[str, Any]
Change = Callable[[Arrays, np.random.Generator], None]


def dead_columns(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["diff3d"][:, :, [3, 16, 17]] = 0


def hot_pixels(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["diff3d"][:, 5, 7] = 20_000
    arrays["diff3d"][::3, 30, 2] = 100_000


def empty_frames(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["diff3d"][[4, 9, 30]] = 0


def nearly_all_empty(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["diff3d"][2:] = 0


def saturated_frames(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["diff3d"] = np.minimum(arrays["diff3d"], 65_534).astype(np.uint16)
    arrays["diff3d"][[2, 7]] = 65_535


def saturated_throughout(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["diff3d"] = np.minimum(arrays["diff3d"], 255).astype(np.uint8)
    arrays["diff3d"][:, 14:18, 14:18] = 255


def one_position(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["xcoords"] = np.full_like(arrays["xcoords"], 40.0)
    arrays["ycoords"] = np.full_like(arrays["ycoords"], 40.0)
    del arrays["objectGuess"]


def repeated_positions(arrays: Arrays, rng: np.random.Generator) -> None:
    for key in ("xcoords", "ycoords"):
        arrays[key][:12] = arrays[key][0]


def far_outside(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["xcoords"][3] += 1500
    arrays["ycoords"][8] -= 1500


def on_a_line(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["ycoords"][:] = 40


def photons(mean: float) -> Change:
    def change(arrays: Arrays, rng: np.random.Generator) -> None:
        counts = arrays["diff3d"].astype(np.float64)
        counts *= mean / counts.sum(axis=(1, 2)).mean()
        drawn = rng.poisson(counts)
        drawn[0, 16, 16] += 1  # of a tenth of a photon a pattern a scan may have none
        arrays["diff3d"] = drawn.astype(np.uint32)

    change.__name__ = f"photons_{mean:g}"
    return change


def stored_as(dtype: str) -> Change:
    def change(arrays: Arrays, rng: np.random.Generator) -> None:
        arrays["diff3d"] = np.minimum(arrays["diff3d"], 60_000).astype(dtype)
        arrays["_metadata"] = np.array('{"measurement": "counts"}')

    change.__name__ = f"stored_as_{dtype}"
    return change


def big_endian(arrays: Arrays, rng: np.random.Generator) -> None:
    for key, array in arrays.items():
        arrays[key] = array.astype(array.dtype.newbyteorder(">"))


def fortran_order(arrays: Arrays, rng: np.random.Generator) -> None:
    for key, array in arrays.items():
        arrays[key] = np.asfortranarray(array)


def tiny_probe(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["probeGuess"] = arrays["probeGuess"] * 1e-15


def empty_mode(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["probeGuess"] = np.concatenate([arrays["probeGuess"], np.zeros_like(arrays["probeGuess"])])


def one_good_pixel(arrays: Arrays, rng: np.random.Generator) -> None:
    arrays["bad_pixels"] = np.ones((32, 32), bool)
    arrays["bad_pixels"][16, 16] = False


CHANGES: tuple[Change, ...] = (
    *(dead_columns, hot_pixels, empty_frames, nearly_all_empty, saturated_frames, saturated_throughout),
    *(one_position, repeated_positions, far_outside, on_a_line, big_endian, fortran_order),
    *(photons(0.1), photons(1), photons(1e4), photons(1e9), stored_as("f2"), stored_as("u4"), stored_as(">f8")),
    *(tiny_probe, empty_mode, one_good_pixel),
)
SHORT = ("empty_frames", "photons_0.1", "photons_1e+09", "one_position", "big_endian")
WARNINGS = {
    "empty_frames": "3 of 36 patterns are empty or hold under 1% of the median counts: 4, 9, 30; they are left out.",
    "nearly_all_empty": "34 of 36 patterns are empty: 2, 3, 4, 5, 6, ....",
    "saturated_frames": "2048 values in 2 of 36 patterns are the largest that uint16 holds: saturated: 2, 7.",
    "saturated_throughout": "join bad_pixels",
}


@pytest.fixture
def arrays(scan: Path) -> Arrays:
    """The scan as integer counts."""
    data = read_scan(scan)
    assert data.object_guess is not None
    return {
        "diff3d": data.counts(slice(None)).astype(np.uint32),
        "xcoords": data.positions[:, 1].copy(),
        "ycoords": data.positions[:, 0].copy(),
        "probeGuess": data.probe.copy(),
        "objectGuess": data.object_guess.copy(),
        "bad_pixels": data.bad_pixels.copy(),
    }


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_odd_numbers_are_trained_on(
    change: Change,
    arrays: Arrays,
    jobs: JobRunner,
    tmp_path: Path,
    long: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[HARD-040] [HARD-041] [DATA-038]"""
    if not long and change.__name__ not in SHORT:
        pytest.skip("in the long form")
    change(arrays, np.random.default_rng(14))
    np.savez(tmp_path / "odd.npz", **arrays)
    with caplog.at_level("WARNING", logger="ptychopinn"):
        data = read_scan(tmp_path / "odd.npz")
    assert WARNINGS.get(change.__name__, "") in caplog.text
    assert np.isfinite(data.counts(slice(None))).all()
    ending = jobs.run("train", tmp_path, tmp_path / "odd.npz", settings={"train": {"nepochs": 2}}, pictures=True)
    assert ending.status == 0, ending
    check_whole(tmp_path / "run")
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(math.isfinite(float(value or "nan")) for row in rows for value in row.values()), rows
    assert all(np.isfinite(w).all() for w in read_bundle(tmp_path / "run" / "wts.h5.zip").weights.values())
    product = read_product(tmp_path / "run" / "reconstruction.h5")
    assert np.isfinite(product.object).all()
    assert np.isfinite(product.probe).all()
    assert "Warning" not in jobs.errors.read_text(), jobs.errors.read_text()[-3000:]


def test_patterns_without_any_photon_are_refused(arrays: Arrays, tmp_path: Path) -> None:
    """[HARD-040]"""
    arrays["diff3d"][:] = 0
    np.savez(tmp_path / "dark.npz", **arrays)
    with pytest.raises(DataError, match="Every pattern is empty"):
        read_scan(tmp_path / "dark.npz")


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "u1", "u2", "u4", ">u4", "i8"])
def test_the_dtype_does_not_matter(dtype: str, arrays: Arrays, tmp_path: Path) -> None:
    """[HARD-040]"""
    counts = np.minimum(arrays["diff3d"], 200)
    arrays |= {"diff3d": counts.astype(dtype), "_metadata": np.array('{"measurement": "counts"}')}
    np.savez(tmp_path / "scan.npz", **arrays)
    data = read_scan(tmp_path / "scan.npz")
    np.testing.assert_array_equal(data.counts(slice(None)), counts)
    write_scan(tmp_path / "again.npz", data.select(np.arange(35, -1, -1)))
    np.testing.assert_allclose(read_scan(tmp_path / "again.npz").counts(slice(None)), counts[::-1], rtol=1e-6)
