"""Reading: each conversion and each refusal of the contract."""

import json
import logging

import numpy as np
import pytest

from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.checks import check_scan
from ptychopinn.data.dataset import Measurement
from ptychopinn.data.diagnostics import Severity
from ptychopinn.data.io import read_object, read_scan
from ptychopinn.errors import ConfigError, DataError


def refusal(path, **options):
    """The message of a refusal; `check_scan` agrees and names the same."""
    with pytest.raises(DataError) as caught:
        read_scan(path, **options)
    assert caught.value.remedy
    assert str(path) in str(caught.value)
    errors = [p for p in check_scan(path, ReadOptions(**options)) if p.severity is Severity.ERROR]
    assert errors
    assert errors[0].message in str(caught.value)
    return str(caught.value)


def said(caplog, path, **options):
    """The scan, and what was logged when it was read."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="ptychopinn"):
        data = read_scan(path, **options)
    assert not [p for p in check_scan(path, ReadOptions(**options)) if p.severity is Severity.ERROR]
    return data, caplog.text


def test_a_canonical_file_is_read_without_a_word(tiny_scan, scan_arrays, counts, caplog):
    """[DATA-001] [DATA-010] x is columns, y is rows."""
    data, text = said(caplog, tiny_scan)
    arrays = scan_arrays()
    assert text == ""
    assert (len(data), data.N, data.name) == (9, 32, "tiny")
    assert data.measurement is Measurement.AMPLITUDE
    assert data.counts_per_unit == 1
    np.testing.assert_array_equal(data.positions, np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1))
    np.testing.assert_array_equal(data.probe, arrays["probeGuess"])
    np.testing.assert_array_equal(data.object_guess, arrays["objectGuess"])
    np.testing.assert_allclose(data.counts(slice(None)), counts, atol=1e-3)
    assert data.metadata.nphotons == pytest.approx(counts.sum() / 9)


@pytest.mark.parametrize("key", ["diffraction", "xcoords", "ycoords", "probeGuess"])
def test_missing_keys_are_named(save, key):
    """[DATA-010]"""
    text = refusal(save(**{key: None}))
    assert f"{key}: The key is missing" in text
    assert "objectGuess" in text  # what the file does have


def test_only_the_required_keys_are_needed(save):
    data = read_scan(save(objectGuess=None, scan_index=None, bad_pixels=None))
    assert data.object_guess is None
    assert data.patches_guess is None
    assert not data.scan_index.any()
    assert not data.bad_pixels.any()


def test_other_keys_are_left_alone(save, caplog):
    """[DATA-012] [DATA-022] Even a pickle, as long as nobody needs it."""
    _, text = said(caplog, save(mine=np.zeros(3), theirs=np.array([None])))
    assert "mine: Not read" in text
    assert "theirs: Not read" in text


def test_pickled_arrays_are_refused(save, scan_arrays):
    """[DATA-022]"""
    for key in ("diffraction", "probeGuess", "_metadata", "objectGuess"):
        text = refusal(save(**{key: np.array([scan_arrays()[key]], dtype=object)}))
        assert f"{key}: " in text
        assert "pickle" in text


def test_diffraction_wins(save, counts, caplog):
    """[DATA-030]"""
    data, text = said(caplog, save(diff3d=counts * 7))
    assert data.counts(slice(None)).sum() == pytest.approx(counts.sum())
    assert "diff3d: Not read" in text


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (np.zeros((9, 32, 30), "u2"), "(9, 32, 30)"),
        (np.zeros((9, 32), "u2"), "(9, 32)"),
        (np.zeros((9, 32, 32, 1), "u2"), "(9, 32, 32, 1)"),
        (np.zeros((32, 32, 8), "u2"), "32 x 8 (shape (32, 32, 8))"),
        (np.zeros((9, 48, 48), "u2"), "one of (32, 64, 128, 256)"),
        (np.zeros((0, 32, 32), "u2"), "no pattern (shape (0, 32, 32))"),
        (np.zeros((9, 32, 32), bool), "bool"),
        (np.zeros((9, 32, 32), complex), "complex128"),
        (np.full((9, 32, 32), "a"), "<U1"),
    ],
)
def test_shapes_and_dtypes_of_patterns_are_refused(save, patterns, expected):
    """[DATA-031]"""
    text = refusal(save(diffraction=None, diff3d=patterns))
    assert "diff3d: " in text
    assert expected in text


def test_one_pattern_is_read_with_a_warning(tmp_path, scan_arrays, caplog):
    """[DATA-031]"""
    path = tmp_path / "one.npz"
    np.savez(path, **scan_arrays(n=1))
    data, text = said(caplog, path)
    assert len(data) == 1
    assert "not trained on" in text


@pytest.mark.parametrize("order", ["C", "F"])
def test_patterns_in_the_last_axis_are_moved(save, counts, caplog, order):
    """[DATA-032]"""
    moved = np.asarray(np.moveaxis(counts, 0, 2), order=order)
    assert moved.shape == (32, 32, 9)
    data, text = said(caplog, save(diffraction=None, diff3d=moved))
    np.testing.assert_array_equal(data.counts(slice(None)), counts)
    assert "(N, N, n)" in text
    assert data.patterns.flags.c_contiguous


def test_fortran_order_is_read(save, counts, caplog):
    """[DATA-032]"""
    data, text = said(caplog, save(diffraction=None, diff3d=np.asfortranarray(counts)))
    np.testing.assert_array_equal(data.counts(slice(None)), counts)
    assert "Fortran" in text


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "u4", ">i4", "i8", "f2", ">f4", "f8"])
@pytest.mark.parametrize("compressed", [False, True])
def test_every_real_dtype_is_read(save, counts, dtype, compressed):
    """[DATA-033]"""
    few = np.minimum(counts, 200)
    data = read_scan(save(compressed, diffraction=None, diff3d=few.astype(dtype)), measurement="counts")
    assert data.patterns.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(data.counts(slice(None)), few)


@pytest.mark.parametrize(
    ("value", "expected"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e300, "not finite"), (-1.0, "negative")]
)
def test_pixels_with_values_that_are_no_measurement_become_bad(save, scan_arrays, caplog, value, expected):
    """[DATA-034] In the patterns that have them, or in all if half of them do; too many are refused."""
    patterns = scan_arrays()["diffraction"].astype(np.float64)
    patterns[[3, 7], 4, 5] = patterns[:5, 4, 6] = value
    data, text = said(caplog, save(diffraction=patterns))
    assert "1 pixels have" in text
    assert f"2 values of 2 of 9 patterns are {expected}: patterns 3, 7;" in text
    assert "(4, 6)" in text
    assert "[DATA-034]" in text
    assert data.counts(slice(None))[3, 4, 6] == 0
    assert np.argwhere(data.bad_pixels).tolist() == [[4, 6]]
    assert data.bad_values is not None
    assert np.argwhere(data.bad_values.masks(slice(None))).tolist() == [[3, 4, 5], [7, 4, 5]]
    patterns[:, :, :20] = value
    text = refusal(save(diffraction=patterns))
    assert f"9 of 9 patterns have values that are {expected}" in text
    assert "float64" in text


def test_values_beyond_float32_are_refused(save, scan_arrays):
    """[DATA-034]"""
    assert "1e+15" in refusal(save(diffraction=scan_arrays()["diffraction"] * np.float32(1e16)))


@pytest.mark.parametrize(
    ("mark", "dtype", "every"),
    [
        (2**32 - 1, "u4", 1),
        (2**32 - 1, "u4", 4),  # in some patterns: no detector counts so far
        (2**32 - 1, "f4", 1),
        (2**32 - 1, "f8", 3),
        (2**31 - 1, "i4", 1),
        (65535, "u2", 1),
        (65535, "u4", 1),
        (65535, "f4", 1),
        (255, "u1", 1),
    ],
)
def test_pixels_with_a_mark_become_bad_in_any_dtype(save, counts, caplog, mark, dtype, every):
    """[DATA-035] Detectors mark their gaps so, and their software keeps the mark in another dtype."""
    patterns = np.minimum(counts, 200).astype(dtype)
    patterns[::every, 10, :] = mark
    data, text = said(caplog, save(diffraction=None, diff3d=patterns), measurement="counts")
    assert ("32 pixels have a value that marks gaps" if every == 1 else "are marks of gaps: patterns 0, ") in text
    assert "[DATA-035]" in text
    assert [p.code for p in data.findings] == ["DATA-035", "DATA-054"]  # the others end at 200
    bad = np.zeros((9, 32, 32), bool)
    bad[::every, 10] = True
    np.testing.assert_array_equal(data.bad_pixels, bad[0] if every == 1 else np.zeros((32, 32), bool))
    if every > 1:
        assert data.bad_values is not None
        np.testing.assert_array_equal(data.bad_values.masks(slice(None)), bad)
    assert data.metadata.nphotons == pytest.approx(data.counts(slice(None)).sum(dtype=np.float64) / 9)


@pytest.mark.parametrize("mark", [2**32 - 1, 65535])
def test_roots_of_marks_are_marks_of_amplitudes(save, scan_arrays, mark):
    """[DATA-035] also where other pixels are brighter."""
    patterns = scan_arrays()["diffraction"].copy()
    patterns[:, 16, 16] = 300.0
    patterns[:, 10, :] = np.sqrt(mark)
    data = read_scan(save(diffraction=patterns))
    assert data.bad_pixels[10].all()
    assert data.bad_pixels.sum() == 32


def test_saturated_values_are_no_marks(save, counts):
    """[DATA-035] [DATA-038] a bright pixel that reaches the largest value now and then."""
    patterns = counts.copy()
    patterns[:, 16, 17] = 40_000
    patterns[0, 16, 17] = 65535
    path = save(diffraction=None, diff3d=patterns)
    assert not read_scan(path).bad_pixels.any()
    assert any("1 values in 1 of 9 patterns are the largest" in p.message for p in check_scan(path))


def test_patterns_without_photons_are_refused(save):
    """[DATA-036]"""
    assert "Every pattern is empty" in refusal(save(diffraction=None, diff3d=np.zeros((9, 32, 32), "u2")))


def test_dc_elsewhere_is_refused_and_the_corner_can_be_moved(save, counts, caplog):
    """[DATA-037]"""
    corner = np.fft.ifftshift(counts, axes=(1, 2))
    path = save(diffraction=None, diff3d=corner)
    text = refusal(path)
    assert "the corner" in text
    assert "--fftshift" in text
    mask = np.zeros((32, 32), bool)
    mask[0, 0] = True
    path = save(diffraction=None, diff3d=corner, bad_pixels=mask)
    data, text = said(caplog, path, fftshift=True)
    assert "DC moved" in text
    assert data.bad_pixels[16, 16]
    good = ~data.bad_pixels
    np.testing.assert_array_equal(data.counts(slice(None))[:, good], counts[:, good])
    assert "top edge" in refusal(save(diffraction=None, diff3d=np.fft.ifftshift(counts, axes=1)))
    assert "left edge" in refusal(save(diffraction=None, diff3d=np.fft.ifftshift(counts, axes=2)))
    assert "the corner" in refusal(save(), fftshift=True)  # it was right before
    read_scan(save(diffraction=None, diff3d=np.full((9, 32, 32), 5, "u2")))  # flat is no evidence


@pytest.mark.parametrize("key", ["xcoords", "ycoords"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.zeros(8), "8 values for 9 patterns"),
        (np.zeros((9, 1)), "(9, 1)"),
        (np.full(9, np.nan), "9 of 9 values are not finite"),
        (np.arange(9) * 1e5, "span 8e+05 pixels"),
        (np.zeros(9, complex), "complex128"),
    ],
)
def test_coordinates_are_refused(save, key, values, expected):
    """[DATA-060]"""
    text = refusal(save(**{key: values}))
    assert f"{key}: " in text
    assert expected in text


def test_coordinates_become_float64(save, caplog):
    """[DATA-060]"""
    data, text = said(caplog, save(xcoords=np.arange(9, dtype=np.int32), ycoords=np.arange(9, dtype=">f4") + 20))
    assert data.positions.dtype == np.float64
    np.testing.assert_array_equal(data.positions, np.stack([np.arange(9) + 20, np.arange(9)], axis=1))
    assert "int32 is read as float64" in text


def test_starting_positions_are_not_used(save, scan_arrays, caplog):
    arrays = scan_arrays()
    _, text = said(caplog, save(xcoords_start=arrays["xcoords"], ycoords_start=arrays["ycoords"] + 1))
    assert "ycoords_start" in text
    assert "xcoords_start" not in text


def test_probes_become_modes_of_complex64(save, scan_arrays, caplog):
    """[DATA-061] [DATA-062]"""
    probe = scan_arrays()["probeGuess"]
    probe[0] *= np.arange(1, 33)[:, None] + np.random.default_rng(0).random((32, 32))  # upright is not sideways
    modes = np.stack([probe[0], 0.5j * probe[0] ** 2])
    for given, expected, word in [
        (probe[0], probe, "(1, 32, 32)"),
        (modes.astype(complex), modes, "complex128"),
        (modes[None], modes, "(2, 32, 32)"),
        (np.moveaxis(modes, 0, 2), modes, "(N, N, modes)"),
        (np.abs(probe), np.abs(probe), "phase zero"),
        (modes.astype(">c8"), modes, ">c8"),
    ]:
        data, text = said(caplog, save(probeGuess=given))
        assert data.probe.dtype == np.complex64
        np.testing.assert_allclose(data.probe, expected, rtol=1e-6)
        assert word in text


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (np.ones((64, 64), complex), "(64, 64) and dtype complex128; the patterns are 32 x 32"),
        (np.ones((2, 2, 32, 32), complex), "(2, 2, 32, 32)"),
        (np.ones(32, complex), "(32,)"),
        (np.zeros((32, 32), complex), "zero everywhere"),
        (np.full((32, 32), np.nan + 0j), "not finite"),
        (np.full((32, 32), 1e300 + 0j), "not finite"),
        (np.ones((32, 32), int), "int64"),
    ],
)
def test_probes_are_refused(save, probe, expected):
    """[DATA-061] [DATA-062]"""
    text = refusal(save(probeGuess=probe))
    assert "probeGuess: " in text
    assert expected in text


def test_objects_and_patches_are_read(save, caplog):
    """[DATA-062]"""
    truth = np.random.default_rng(0).random((9, 32, 32)) + 0j
    data, text = said(caplog, save(objectGuess=np.ones((1, 50, 60)), Y=truth))
    assert data.object_guess.shape == (50, 60)
    assert (data.object_guess == 1).all()
    assert data.object_guess.dtype == data.patches_guess.dtype == np.complex64
    np.testing.assert_allclose(data.patches_guess, truth, rtol=1e-6)
    assert "Y: complex128 is read as complex64" in text
    for key, value, expected in [
        ("objectGuess", np.ones((2, 50, 60), complex), "one layer"),
        ("objectGuess", np.full((50, 60), np.inf + 0j), "not finite"),
        ("objectGuess", np.ones((0, 60), complex), "(0, 60)"),
        ("Y", truth[:8], "(8, 32, 32)"),
        ("Y", truth * np.nan, "not finite"),
    ]:
        text = refusal(save(**{key: value}))
        assert f"{key}: " in text
        assert expected in text


def test_scan_index_and_bad_pixels(save, caplog):
    """[DATA-063]"""
    index = np.repeat([0, 1, 2], 3)
    mask = np.zeros((32, 32), np.uint8)
    mask[:17] = 1
    data, text = said(caplog, save(scan_index=index.astype(float), bad_pixels=mask))
    assert data.scan_index.dtype == np.int64
    np.testing.assert_array_equal(data.scan_index, index)
    np.testing.assert_array_equal(data.bad_pixels, mask == 1)
    for word in ("float64 is read as int64", "uint8 is read as bool", "53% of the pixels are bad"):
        assert word in text
    for key, value, expected in [
        ("scan_index", index[:8], "(8,)"),
        ("scan_index", index + 0.5, "not whole"),
        ("scan_index", index * np.nan, "not whole"),
        ("bad_pixels", mask[:31], "(31, 32)"),
        ("bad_pixels", mask * 3, "other than 0 and 1"),
        ("bad_pixels", mask | 1, "Every pixel is bad"),
        ("bad_pixels", np.full((32, 32), np.nan), "other than 0 and 1"),
    ]:
        text = refusal(save(**{key: value}))
        assert f"{key}: " in text
        assert expected in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array("{broken"), "not JSON"),
        (np.array(b"\xff{}"), "not JSON"),
        (np.array("[" * 100_000), "not JSON"),
        (np.array("[1]"), "JSON list"),
        (np.array(["{}", "{}"]), "(2,)"),
        (np.array(3.0), "float64"),
        (np.array('{"nphotons": -3}'), "nphotons -3"),
        (np.array('{"measurement": "volts"}'), "measurement 'volts'"),
        (np.array('{"pixel_size_m": NaN}'), "pixel_size_m"),
        (np.array('{"schema_version": 2}'), "schema version 2"),
    ],
)
def test_broken_metadata_are_refused(save, value, expected):
    """[DATA-064]"""
    text = refusal(save(_metadata=value))
    assert "_metadata: " in text
    assert expected in text


def test_older_metadata_are_understood(save, scan_arrays, caplog):
    """[DATA-064] [DATA-053]"""
    older = {"schema_version": "1.0.0", "physics_parameters": {"nphotons": 1e5, "N": 32}, "source": "beamline"}
    normalised = scan_arrays()["diffraction"] * np.float32(0.01234)
    for text in (np.array(json.dumps(older)), np.array([json.dumps(older).encode()])):
        data, log = said(caplog, save(_metadata=text, diffraction=normalised))
        assert data.metadata.nphotons == pytest.approx(1e5)
        assert data.metadata.source == "beamline"
        assert data.metadata.measurement is Measurement.AMPLITUDE
        assert data.counts(slice(None)).sum(dtype=np.float64) / 9 == pytest.approx(1e5, rel=1e-4)
        assert "physics_parameters" in log


def test_arguments_out_of_bounds_are_refused(tiny_scan):
    with pytest.raises(ConfigError, match="'counts' or 'amplitude'"):
        read_scan(tiny_scan, measurement="volts")
    for value in (0, -1, np.inf, np.nan):
        with pytest.raises(ConfigError, match="nphotons"):
            read_scan(tiny_scan, nphotons=value)


def test_a_refusal_says_how_many_more_there_are(save):
    """[DATA-010] [DATA-011]"""
    path = save(probeGuess=np.zeros((32, 32), complex), xcoords=np.zeros(8), scan_index=np.zeros(8))
    assert "2 more: 'ptychopinn validate'" in refusal(path)
    assert {p.key for p in check_scan(path) if p.severity is Severity.ERROR} == {"probeGuess", "xcoords", "scan_index"}


def test_the_measured_scan(shared_data, caplog):
    """[DATA-010] [DATA-040] As an exported scan is: compressed uint16 counts under diff3d."""
    data, _ = said(caplog, shared_data / "siemens-star.npz")
    assert (len(data), data.N) == (516, 128)
    assert data.measurement is Measurement.COUNTS
    assert data.metadata.nphotons == pytest.approx(461_213, rel=1e-5)
    assert data.probe.shape == (1, 128, 128)
    assert read_object(shared_data / "siemens-star-reference.npz").shape == (500, 497)
