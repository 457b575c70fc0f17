"""Legacy files into canonical ones."""

import json

import numpy as np
import pytest
import scan_formats

from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.checks import check_scan
from ptychopinn.data.convert import convert_scan, parse_frames
from ptychopinn.data.dataset import Measurement
from ptychopinn.data.diagnostics import Severity
from ptychopinn.data.io import read_scan
from ptychopinn.errors import ConfigError, DataError, UsageError


@pytest.fixture
def legacy(tmp_path, scan_arrays, counts):
    """As older software wrote it: (N, N, n) counts with DC in the corner, double precision, no metadata."""
    path = tmp_path / "legacy.npz"
    moved = np.moveaxis(np.fft.ifftshift(counts, axes=(1, 2)), 0, 2)
    arrays = scan_arrays(diffraction=None, _metadata=None, diff3d=moved)
    arrays["probeGuess"] = arrays["probeGuess"][0].astype(complex)
    np.savez_compressed(path, **arrays)
    return path


def test_a_legacy_file_becomes_canonical(legacy, tmp_path, counts):
    """[DATA-082] [DATA-032] [DATA-037]"""
    target = tmp_path / "canonical.npz"
    convert_scan(legacy, target, ReadOptions(fftshift=True))
    data = read_scan(target)
    assert data.measurement is Measurement.AMPLITUDE
    np.testing.assert_allclose(data.counts(slice(None)), counts, rtol=1e-6)
    assert [p.severity for p in check_scan(target)] == [Severity.NOTE]


def test_options_act(legacy, tmp_path, counts):
    """[DATA-082] [DATA-050]"""
    target = tmp_path / "canonical.npz"
    convert_scan(legacy, target, ReadOptions(fftshift=True, nphotons=5e4), compress=True)
    assert read_scan(target).counts(slice(None)).sum() / 9 == pytest.approx(5e4, rel=1e-4)
    with np.load(legacy) as file:
        np.savez(tmp_path / "float.npz", **(dict(file) | {"diff3d": counts.astype(np.float32)}))
    convert_scan(tmp_path / "float.npz", tmp_path / "float-canonical.npz", ReadOptions(measurement="counts"))
    np.testing.assert_allclose(read_scan(tmp_path / "float-canonical.npz").counts(slice(None)), counts, rtol=1e-6)


def test_a_target_is_replaced_only_when_told(legacy, tiny_scan, tmp_path):
    """[DATA-082]"""
    before = tiny_scan.read_bytes()
    with pytest.raises(UsageError, match="exists already.*--overwrite"):
        convert_scan(legacy, tiny_scan, ReadOptions(fftshift=True))
    assert tiny_scan.read_bytes() == before
    convert_scan(legacy, tiny_scan, ReadOptions(fftshift=True), overwrite=True)
    assert tiny_scan.read_bytes() != before
    convert_scan(tiny_scan, tiny_scan, overwrite=True)
    assert len(read_scan(tiny_scan)) == 9


def test_a_refused_source_leaves_nothing(legacy, tiny_scan, tmp_path):
    """[DATA-082]"""
    before = tiny_scan.read_bytes()
    with pytest.raises(DataError, match="the corner"):
        convert_scan(legacy, tmp_path / "new.npz")
    with pytest.raises(DataError, match="the corner"):
        convert_scan(legacy, tiny_scan, overwrite=True)
    assert tiny_scan.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["legacy.npz", "tiny.npz"]


def test_the_measured_scan(shared_data, tmp_path):
    """[DATA-080] [DATA-082]"""
    target = tmp_path / "star.npz"
    source = convert_scan(shared_data / "siemens-star.npz", target)
    data = read_scan(target)
    index = np.arange(0, 516, 50)
    np.testing.assert_allclose(data.counts(index), source.counts(index), rtol=1e-6)
    assert data.metadata.nphotons == pytest.approx(source.metadata.nphotons, rel=1e-9)
    np.testing.assert_array_equal(data.positions, source.positions)


def converted(source, target, **steps):
    convert_scan(source, target, conversion=ConversionOptions(**steps), overwrite=True)
    return read_scan(target)


def test_a_scan_with_every_fault_is_mended(tmp_path, scan_arrays, counts):
    """[DATA-220] [DATA-221] [DATA-222] [DATA-223] One command undoes what was done to a scan."""
    right = scan_arrays()
    wrong = {
        "diff3d": np.roll(np.flip(counts, 1), 1, axis=1).astype(np.int64).swapaxes(1, 2),
        "ycoords": -right["xcoords"] * 1e-8 * 1e6,  # exchanged, negated, micrometres
        "xcoords": right["ycoords"] * 1e-8 * 1e6,
        "probeGuess": np.flip(right["probeGuess"], 1).swapaxes(1, 2),
    }
    wrong["diff3d"][2, 5, 6] = 2**31 - 1
    np.savez(tmp_path / "wrong.npz", **wrong)
    data = converted(
        tmp_path / "wrong.npz",
        tmp_path / "right.npz",
        transpose=True,
        flip_y=True,
        swap_axes=True,
        negate_x=True,
        position_unit="um",
        pixel_size=1e-8,
        mask_above=1e8,
        frames="0-6,8",
    )
    np.testing.assert_allclose(data.positions, np.stack([right["ycoords"], right["xcoords"]], 1)[[*range(7), 8]])
    assert data.bad_values is not None
    good = ~data.bad_values.masks(slice(None))
    assert (~good).sum() == 1
    np.testing.assert_allclose(data.counts(slice(None))[good], counts[[*range(7), 8]][good], rtol=1e-6)
    np.testing.assert_array_equal(data.probe, right["probeGuess"])
    assert data.metadata.pixel_size_m == 1e-8


def test_patterns_are_turned_without_the_probe(tmp_path, scan_arrays, counts):
    """[DATA-220] If the probe was right before."""
    right = scan_arrays()
    flipped = np.roll(np.flip(counts, 1), 1, axis=1)
    np.savez(tmp_path / "wrong.npz", **scan_arrays(diffraction=None, _metadata=None, diff3d=flipped))
    data = converted(tmp_path / "wrong.npz", tmp_path / "right.npz", flip_y=True, turn_probe=False)
    np.testing.assert_array_equal(data.probe, right["probeGuess"])
    np.testing.assert_allclose(data.counts(slice(None)), counts, rtol=1e-6)


@pytest.mark.parametrize(("unit", "factor"), [("m", 1), ("um", 1e6), ("nm", 1e9), ("mm", 1e3)])
def test_positions_in_a_unit_become_pixels(tmp_path, scan_arrays, unit, factor):
    """[DATA-221] With the pixel size of the file's metadata."""
    right = scan_arrays()
    metadata = json.loads(str(right["_metadata"])) | {"pixel_size_m": 3e-8}
    wrong = {name: right[name] * 3e-8 * factor for name in ("xcoords", "ycoords")}
    np.savez(tmp_path / "wrong.npz", **scan_arrays(**wrong, _metadata=np.array(json.dumps(metadata))))
    data = converted(tmp_path / "wrong.npz", tmp_path / "right.npz", position_unit=unit)
    np.testing.assert_allclose(data.positions, np.stack([right["ycoords"], right["xcoords"]], axis=1))
    assert data.metadata.pixel_size_m == 3e-8


def test_several_scans_are_joined(tmp_path, scan_arrays):
    """[DATA-224]"""
    np.savez(tmp_path / "scan.npz", **scan_arrays())
    convert_scan([tmp_path / "scan.npz"] * 2, tmp_path / "both.npz")
    data = read_scan(tmp_path / "both.npz")
    assert (len(data), data.scan_index.tolist()) == (18, [0] * 9 + [1] * 9)


def test_positions_masks_and_backgrounds_come_from_files(tmp_path, scan_arrays):
    """[DATA-221] [DATA-222]"""
    arrays = scan_arrays()
    np.savez(tmp_path / "scan.npz", **scan_arrays(xcoords=None, ycoords=None))
    table = "y,x\n" + "\n".join(f"{y},{x}" for y, x in zip(arrays["ycoords"], arrays["xcoords"], strict=True))
    (tmp_path / "positions.csv").write_text(table)
    np.save(tmp_path / "mask.npy", np.eye(32))
    np.savez(tmp_path / "dark.npz", background=np.full((32, 32), 0.5))
    data = converted(
        tmp_path / "scan.npz",
        tmp_path / "out.npz",
        positions=str(tmp_path / "positions.csv"),
        mask=str(tmp_path / "mask.npy"),
        background=str(tmp_path / "dark.npz"),
    )
    np.testing.assert_allclose(data.positions[:, 0], arrays["ycoords"])
    np.testing.assert_array_equal(data.bad_pixels, np.eye(32, dtype=bool))
    expected = np.maximum(arrays["diffraction"].astype(float) ** 2 - 0.5, 0)
    expected[:, np.eye(32, dtype=bool)] = 0
    np.testing.assert_allclose(data.counts(slice(None)), expected, rtol=1e-4, atol=1e-4)


def test_one_pixel_size_is_refused_for_patterns_that_are_not_square(tmp_path, scan_arrays):
    """[DATA-221] Along the shorter axis object pixels are larger."""
    arrays = {key: scan_arrays()[key] for key in ("diffraction", "xcoords", "ycoords")}
    np.savez(tmp_path / "scan.npz", **arrays | {"diffraction": arrays["diffraction"][:, :, 2:-2]})
    with pytest.raises(DataError, match="32 x 28 have object pixels of two sizes.*--detector-pixel"):
        convert_scan(
            tmp_path / "scan.npz", tmp_path / "out.npz", ReadOptions(probe="mean"), ConversionOptions(pixel_size=1e-8)
        )


def test_more_columns_of_positions_are_not_guessed(tmp_path, scan_arrays, caplog):
    """[DATA-221] A column that counts the rows is refused; others after y and x are named."""
    arrays = scan_arrays()
    np.savez(tmp_path / "scan.npz", **arrays)
    places = list(zip(arrays["ycoords"], arrays["xcoords"], strict=True))
    table = tmp_path / "table.txt"
    table.write_text("# frame y x\n" + "\n".join(f"{k} {y} {x}" for k, (y, x) in enumerate(places, 1)))
    with pytest.raises(DataError, match="first column .*counts the rows"):
        converted(tmp_path / "scan.npz", tmp_path / "out.npz", positions=str(table))
    table.write_text("\n".join(f"{y} {x} 0.5 ok" for y, x in places))
    data = converted(tmp_path / "scan.npz", tmp_path / "out.npz", positions=str(table))
    np.testing.assert_allclose(data.positions[:, 0], arrays["ycoords"])
    assert "table.txt has 3 columns: the first two are taken as y and x" in caplog.text


def test_pickles_are_not_opened(tmp_path, scan_arrays):
    """[HARD-003]"""
    np.savez(tmp_path / "scan.npz", **scan_arrays())
    np.save(tmp_path / "mask.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as an array"):
        converted(tmp_path / "scan.npz", tmp_path / "out.npz", mask=str(tmp_path / "mask.npy"))


@pytest.mark.parametrize("frames", ["", "5-2", "a", "1-", "0-99999999999"])
def test_a_list_that_is_none_is_refused(frames):
    """[DATA-223]"""
    with pytest.raises(ConfigError, match="pattern"):
        parse_frames(frames)


def test_every_format_is_converted(tmp_path):
    """[DATA-082] With a probe that is made, and cropped."""
    path = scan_formats.ptyd(tmp_path / "scan.ptyd", scan_formats.example(64))
    convert_scan(path, tmp_path / "out.npz", ReadOptions(probe="mean"), ConversionOptions(resize=32))
    data = read_scan(tmp_path / "out.npz")
    assert data.N == 32
    assert data.metadata.pixel_size_m == pytest.approx(2 * scan_formats.example(64).pixel_m)


def test_gaps_are_marked_before_values_change(tmp_path, scan_arrays, counts):
    """[DATA-222] [DATA-035] A background, a made probe and outliers are not misled by the mark of a gap."""
    wrong = counts.astype(np.uint32)
    wrong[:, 4:6, 20] = 2**32 - 1
    np.savez(tmp_path / "scan.npz", **scan_arrays(diffraction=None, _metadata=None, diff3d=wrong))
    data = converted(tmp_path / "scan.npz", tmp_path / "out.npz", background="0.25", drop_outliers=True)
    assert np.argwhere(data.bad_pixels).tolist() == [[4, 20], [5, 20]]
    assert len(data) == 9
    assert float(data.counts(slice(None)).max()) <= counts.max()
    made = read_scan(tmp_path / "scan.npz", probe="mean")
    energy = float((np.abs(made.probe) ** 2).sum())
    assert energy == pytest.approx(counts.sum(axis=(1, 2)).mean(), rel=0.05)
