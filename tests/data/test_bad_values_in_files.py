"""Bad values of single patterns through files, formats and conversions. Requirements: specs/01-data.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scan_formats

import ptychopinn
from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.data.bad_values import BadValues
from ptychopinn.data.convert import convert_scan, read_converted
from ptychopinn.data.cxi_writer import write_cxi_scan
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.from_arrays import mend_scan
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray

N = 32
EXAMPLE = scan_formats.example()
COUNT = len(EXAMPLE.counts)


def write_npz(path: Path, counts: AnyArray) -> None:
    """Counts in the place of the example's."""
    np.savez(
        path,
        diff3d=counts,
        probeGuess=EXAMPLE.probe,
        ycoords=EXAMPLE.positions[:, 0],
        xcoords=EXAMPLE.positions[:, 1],
    )


def masks_of() -> np.ndarray:
    """A stripe in every fourth pattern, beside the centre."""
    found = np.zeros((COUNT, N, N), bool)
    found[::4, 18:20, 3:29] = True
    return found


def scan_of(counts: np.ndarray | None = None, masks: np.ndarray | None = None) -> ScanDataset:
    return ScanDataset(
        patterns=EXAMPLE.counts if counts is None else counts,
        measurement=Measurement.COUNTS,
        positions=EXAMPLE.positions,
        probe=EXAMPLE.probe,
        bad_values=None if masks is None else BadValues.of_masks(masks),
    )


def found_in(data: ScanDataset) -> np.ndarray:
    assert data.bad_values is not None
    return data.bad_values.masks(slice(None))


@pytest.mark.parametrize("value", [-1, np.nan, 2.0**32 - 1])
@pytest.mark.parametrize("door", ["file", "arrays", "read"])
def test_marks_in_some_patterns_are_bad_there(tmp_path: Path, value: float, door: str) -> None:
    """[DATA-034] [DATA-035] [DATA-127] [DATA-130] By every door; the pixel is good in the other patterns."""
    counts, masks = EXAMPLE.counts.astype(np.float64), masks_of()
    counts[masks] = value
    data = scan_of(counts)
    if door == "arrays":
        data = mend_scan(data)
    elif door == "read":
        data = ptychopinn.read(counts, positions=EXAMPLE.positions, probe=EXAMPLE.probe, measurement="counts")
    else:
        write_npz(tmp_path / "scan.npz", counts)
        data = read_scan(tmp_path / "scan.npz", measurement="counts")
    np.testing.assert_array_equal(found_in(data), masks)
    assert not data.bad_pixels.any()
    assert [one.code for one in data.findings] == ["DATA-035" if value > 0 else "DATA-034"]
    assert f"{masks.sum()} values of {COUNT // 4} of {COUNT} patterns are" in data.findings[0].message
    np.testing.assert_array_equal(data.counts(slice(None))[~masks], EXAMPLE.counts[~masks])
    assert data.counts(slice(None)).sum() == pytest.approx(EXAMPLE.counts.sum(), rel=0.03)


@pytest.mark.parametrize("dtype", [np.uint32, np.float32])
def test_a_mark_is_seen_below_brighter_pixels(dtype: type) -> None:
    """[DATA-035] Marks of two kinds in some patterns, beside a hot pixel; the middle counts to a mark once."""
    counts, masks = EXAMPLE.counts.astype(dtype), masks_of()
    counts[masks] = 65535
    counts[1, 8, 9] = 2**24 - 1
    counts[:, 5, 7] = 3_000_000
    counts[:, 16, 16], counts[2, 16, 16] = 60_000, 65535
    masks[1, 8, 9] = True
    data = mend_scan(scan_of(counts))
    np.testing.assert_array_equal(found_in(data), masks)
    assert np.argwhere(data.bad_pixels).tolist() == [[5, 7]]


def test_a_pixel_that_is_bad_in_half_of_the_patterns_is_bad_in_all() -> None:
    """[DATA-034]"""
    counts = EXAMPLE.counts.astype(np.int32)
    counts[: COUNT // 2, 5, 6] = counts[: COUNT // 2 - 1, 5, 7] = -1
    data = mend_scan(scan_of(counts))
    assert np.argwhere(data.bad_pixels).tolist() == [[5, 6]]
    assert np.argwhere(found_in(data)[:, 5]).tolist() == [[k, 7] for k in range(COUNT // 2 - 1)]


def test_negative_noise_in_many_pixels_is_refused_and_one_mark_is_not() -> None:
    """[DATA-034]"""
    rng = np.random.default_rng(0)
    some = rng.random((COUNT, N, N)) < 0.05
    counts = EXAMPLE.counts.astype(np.float32)
    counts[some] = -1
    np.testing.assert_array_equal(found_in(mend_scan(scan_of(counts))), some)
    counts[some] = -rng.random(int(some.sum()))
    with pytest.raises(DataError, match="negative"):
        mend_scan(scan_of(counts))


def test_a_pattern_that_measured_little_is_left_out() -> None:
    """[DATA-132]"""
    counts = EXAMPLE.counts.astype(np.float32)
    counts[3], counts[5, :15] = np.nan, np.nan
    data = mend_scan(scan_of(counts))
    assert [one.code for one in data.findings] == ["DATA-034", "DATA-132"]
    assert data.numbers is not None
    assert data.numbers.tolist() == [k for k in range(COUNT) if k != 3]
    assert found_in(data)[4, :15].all()


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".cxi", "masks"])
def test_files_keep_them(tmp_path: Path, suffix: str) -> None:
    """[DATA-080] [DATA-131] [DATA-225]"""
    masks = masks_of()
    data, path = scan_of(masks=masks), tmp_path / f"scan{suffix}"
    if suffix == ".cxi":
        write_cxi_scan(path, data)
    else:
        path = tmp_path / "scan.npz"
        write_scan(path, data)
    arrays = {} if suffix == ".cxi" else dict(np.load(path))
    if suffix == ".h5":
        path = tmp_path / "scan.h5"
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = str(array) if name == "_metadata" else array
    if suffix == "masks":
        others = {name: array for name, array in arrays.items() if not name.startswith("bad_value_")}
        np.savez(path, bad_values=masks, **others)
    found = read_scan(path)
    np.testing.assert_array_equal(found_in(found), masks)
    np.testing.assert_allclose(found.counts(slice(None))[~masks], EXAMPLE.counts[~masks], rtol=1e-6)
    assert not found.bad_pixels.any()
    assert found.findings == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"bad_value_offsets": np.zeros(3, int), "bad_value_pixels": np.zeros(0, int)},
        {"bad_value_offsets": np.zeros(COUNT + 1, int)},
        {"bad_value_offsets": np.zeros(COUNT + 1, int), "bad_value_pixels": np.zeros(2, int)},
        {"bad_values": np.zeros((3, N, N), bool)},
    ],
)
def test_records_that_do_not_fit_are_refused(tmp_path: Path, wrong: dict[str, np.ndarray]) -> None:
    """[DATA-131]"""
    write_scan(tmp_path / "scan.npz", scan_of())
    np.savez(tmp_path / "wrong.npz", **dict(np.load(tmp_path / "scan.npz")), **wrong)
    with pytest.raises(DataError, match="bad_value"):
        read_scan(tmp_path / "wrong.npz")


@pytest.mark.parametrize("name", ["cxi", "nexus", "ptyd"])
def test_formats_with_a_mask_a_pattern(tmp_path: Path, name: str) -> None:
    """[DATA-130] [READ-003]"""
    masks = masks_of()
    each = replace(EXAMPLE, bad=masks | EXAMPLE.bad) if name != "ptyd" else EXAMPLE
    path = getattr(scan_formats, name)(tmp_path / f"scan.{name}", each)
    if name == "ptyd":
        with h5py.File(path, "a") as file:
            start = 0
            for chunk in (file["chunks"][key] for key in sorted(file["chunks"], key=int)):
                weights = chunk["weights"][()]
                weights[masks[start : start + len(weights)]] = 0
                chunk["weights"][...] = weights
                start += len(weights)
    data = (
        read_converted(path, conversion=ConversionOptions()) if name != "ptyd" else ptychopinn.read(path, probe="mean")
    )
    np.testing.assert_array_equal(found_in(data), masks)
    np.testing.assert_array_equal(data.bad_pixels, EXAMPLE.bad)


def blocks_of_two(masks: np.ndarray) -> np.ndarray:
    return masks.reshape(len(masks), N // 2, 2, N // 2, 2).any(axis=(2, 4))


STEPS: dict[str, tuple[dict[str, object], Callable[[np.ndarray], np.ndarray]]] = {
    "flip": ({"flip_y": True}, lambda m: np.roll(np.flip(m, 1), 1, 1)),
    "transpose": ({"transpose": True}, lambda m: m.swapaxes(1, 2)),
    "rotate": ({"rotate": 1}, lambda m: np.roll(np.flip(m.swapaxes(1, 2), 1), 1, 1)),
    "shift": ({"shift": (1, -2)}, lambda m: np.roll(m, (1, -2), (1, 2))),
    "frames": ({"frames": "2-9,12"}, lambda m: m[[*range(2, 10), 12]]),
    "stride": ({"stride": 2}, lambda m: m[::2]),
    "pad": ({"resize": 64}, lambda m: np.pad(m, ((0, 0), (16, 16), (16, 16)))),
    "bin and pad": ({"bin": 2, "resize": 32}, lambda m: np.pad(blocks_of_two(m), ((0, 0), (8, 8), (8, 8)))),
    "background": ({"background": "1"}, lambda m: m),
}


@pytest.mark.parametrize("step", list(STEPS))
def test_conversions_carry_them(tmp_path: Path, step: str) -> None:
    """[DATA-130] [DATA-211] [DATA-220] [DATA-222] Marks in single patterns, through each step; nothing leaks."""
    options, expected = STEPS[step]
    found = []
    for value in (2**31 - 1, -1):
        counts, masks = EXAMPLE.counts.astype(np.int32), masks_of()
        counts[masks] = value
        write_npz(tmp_path / "scan.npz", counts)
        data = convert_scan(
            tmp_path / "scan.npz", tmp_path / "new.npz", conversion=ConversionOptions(**options), overwrite=True
        )
        again = read_scan(tmp_path / "new.npz")
        np.testing.assert_array_equal(found_in(data), expected(masks))
        np.testing.assert_array_equal(found_in(again), expected(masks))
        good = ~(found_in(data) | data.bad_pixels)
        np.testing.assert_allclose(again.counts(slice(None))[good], data.counts(slice(None))[good], rtol=1e-5)
        found.append(data.counts(slice(None)))
    np.testing.assert_array_equal(*found)


def test_joined_scans_keep_their_own(tmp_path: Path) -> None:
    """[DATA-130] [DATA-223]"""
    masks = masks_of()
    write_scan(tmp_path / "one.npz", scan_of())
    write_scan(tmp_path / "two.npz", scan_of(masks=masks))
    data = read_converted([tmp_path / "one.npz", tmp_path / "two.npz"])
    np.testing.assert_array_equal(found_in(data), np.concatenate([np.zeros_like(masks), masks]))


def test_sizes_that_are_fitted_take_them_along(tmp_path: Path) -> None:
    """[DATA-130] [DATA-210] 40 x 40 patterns, with a mask a pattern given in Python and in a file."""
    masks = np.pad(masks_of(), ((0, 0), (4, 4), (4, 4)))
    counts = np.pad(EXAMPLE.counts, ((0, 0), (4, 4), (4, 4)))
    probe = np.pad(EXAMPLE.probe, ((0, 0), (4, 4), (4, 4)))
    given = {"positions": EXAMPLE.positions, "probe": probe, "measurement": "counts"}
    data = ptychopinn.read(counts, bad_pixels=masks, **given)
    np.testing.assert_array_equal(found_in(data), np.pad(masks, ((0, 0), (12, 12), (12, 12))))
    np.save(tmp_path / "mask.npy", masks)
    other = ptychopinn.read(counts, mask=str(tmp_path / "mask.npy"), **given)
    np.testing.assert_array_equal(found_in(other), found_in(data))
    with pytest.raises(DataError, match="does not fit"):
        ptychopinn.read(counts, bad_pixels=masks[:3], **given)
