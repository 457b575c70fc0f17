"""The frozen scan."""

import dataclasses

import numpy as np
import pytest

from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.lazy_rows import LazyRows, take_rows
from ptychopinn.errors import DataError


def make(**changes):
    n, size = 4, 8
    arrays = {
        "patterns": np.arange(n * size * size, dtype=np.uint16).reshape(n, size, size),
        "measurement": Measurement.COUNTS,
        "positions": np.zeros((n, 2)),
        "probe": np.ones((1, size, size), complex),
    }
    return ScanDataset(**(arrays | changes))


def test_it_is_frozen_and_typed():
    """[DATA-001]"""
    data = make(measurement="counts", positions=np.zeros((4, 2), np.float32))
    assert (len(data), data.N) == (4, 8)
    assert data.measurement is Measurement.COUNTS
    assert (data.positions.dtype, data.probe.dtype) == (np.float64, np.complex64)
    assert (data.scan_index.dtype, data.bad_pixels.dtype) == (np.int64, bool)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patterns": np.zeros((4, 8, 9))}, "(4, 8, 9)"),
        ({"patterns": np.zeros((4, 8, 8), complex)}, "complex128"),
        ({"positions": np.zeros((3, 2))}, "positions has the shape (3, 2)"),
        ({"positions": np.full((4, 2), np.nan)}, "not finite"),
        ({"probe": np.ones((8, 8))}, "(modes, 8, 8)"),
        ({"scan_index": np.zeros(5, int)}, "scan_index"),
        ({"bad_pixels": np.zeros((9, 9), bool)}, "bad_pixels"),
        ({"patches_guess": np.zeros((4, 9, 9), complex)}, "patches_guess"),
        ({"object_guess": np.zeros((1, 9, 9), complex)}, "object_guess"),
        ({"counts_per_unit": 0.0}, "counts_per_unit"),
    ],
)
def test_what_contradicts_itself_is_refused(change, said):
    """[DATA-001]"""
    with pytest.raises(DataError) as caught:
        make(**change)
    assert said in str(caught.value)
    assert caught.value.remedy


def test_counts_are_squared_in_float32_and_zero_at_bad_pixels():
    """[DATA-002] [DATA-033] 255 and 65535 overflow their own dtype when squared."""
    for dtype in (np.uint8, np.uint16, ">u2"):
        top = np.iinfo(dtype).max
        bad = np.zeros((8, 8), bool)
        bad[2, 3] = True
        data = make(
            patterns=np.full((4, 8, 8), top, dtype),
            measurement="amplitude",
            bad_pixels=bad,
            counts_per_unit=2.0,
        )
        counts = data.counts(slice(1, 3))
        assert counts.dtype == np.float32
        assert counts.shape == (2, 8, 8)
        assert counts[0, 2, 3] == 0
        np.testing.assert_allclose(counts[:, ~bad], 2.0 * float(top) ** 2, rtol=1e-6)
    assert (make().counts(np.array([3, 0])) == make().patterns[[3, 0]]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, -5.0])
def test_whatever_stands_at_a_bad_pixel_is_zero(value):
    """[DATA-002]"""
    bad = np.zeros((8, 8), bool)
    bad[0, 0] = True
    patterns = np.ones((4, 8, 8))
    patterns[:, 0, 0] = value
    counts = make(patterns=patterns, bad_pixels=bad, measurement="amplitude").counts(slice(None))
    assert counts.sum() == 4 * 63


def test_reading_counts_leaves_the_scan_alone():
    patterns = np.full((4, 8, 8), 3, np.float32)
    bad = np.ones((8, 8), bool)
    make(patterns=patterns, bad_pixels=bad).counts(slice(None))
    assert (patterns == 3).all()


def test_a_selection_copies_nothing():
    """[DATA-003]"""
    truth = np.arange(4 * 64).reshape(4, 8, 8).astype(np.complex64)
    data = make(positions=np.arange(8.0).reshape(4, 2), patches_guess=truth)
    run = data.select(np.array([1, 2]))
    assert np.shares_memory(run.patterns, data.patterns)
    for index in ([3, 0], [2], [1, 1], []):
        index = np.array(index, np.int64)
        part = data.select(index)
        if len(index) != 1:
            assert isinstance(part.patterns, LazyRows)
        assert len(part) == len(index)
        assert part.patterns.ndim == 3
        np.testing.assert_array_equal(part.positions, data.positions[index])
        np.testing.assert_array_equal(part.counts(slice(None)), data.counts(index))
        np.testing.assert_array_equal(np.asarray(part.patches_guess), truth[index])
    twice = data.select(np.array([3, 1, 0])).select(np.array([2, 0]))
    np.testing.assert_array_equal(twice.counts(slice(None)), data.counts(np.array([0, 3])))
    with pytest.raises(IndexError):
        data.select(np.array([2, 3, 4]))


def test_rows_are_an_array_to_numpy():
    rows = take_rows(np.arange(12).reshape(4, 3), np.array([2, 0]))
    assert isinstance(rows, LazyRows)
    np.testing.assert_array_equal(np.array(rows), [[6, 7, 8], [0, 1, 2]])
    np.testing.assert_array_equal(rows[-1], [0, 1, 2])
    assert np.asarray(rows, np.float32).dtype == np.float32
    assert len(rows) == 2
