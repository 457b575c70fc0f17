"""One scan in every format is read as the same scan: specs/01-data.md."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
import scan_formats
from scan_formats import FORMATS, Example

from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.checks import check_scan
from ptychopinn.data.convert import convert_scan
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.data.readers.find import CORE_READERS, knows, read_with
from ptychopinn.errors import DataError

CUBES = ["py4dstem", "zarr2", "zarr3", "zarr-zip"]
WITH_PROBE = [name for name in FORMATS if name not in ("ptypy", "ptychofm", "ptychonn", *CUBES)]


def write_example(name: str, folder: Path, scan: Example | None = None) -> Path:
    file, write = FORMATS[name]
    return write(folder / file, scan or scan_formats.example())


def assert_is(found: ScanDataset, scan: Example, *, frame: bool = True) -> None:
    """Counts, mask and probe are equal; positions are, apart from an offset where formats have no frame."""
    good = ~found.bad_pixels
    np.testing.assert_array_equal(found.bad_pixels, scan.bad)
    np.testing.assert_array_equal(found.counts(slice(None))[:, good], scan.counts[:, good].astype(np.float32))
    np.testing.assert_array_equal(found.probe, scan.probe)
    offset = found.positions - scan.positions
    np.testing.assert_allclose(offset, 0 if frame else offset[:1].repeat(len(offset), 0), atol=1e-6)


@pytest.mark.parametrize("name", WITH_PROBE)
def test_every_format_gives_the_same_scan(name: str, tmp_path: Path) -> None:
    """[DATA-200] [DATA-201]"""
    scan = scan_formats.example()
    path = write_example(name, tmp_path)
    found = read_scan(path)
    assert_is(found, scan)
    assert found.metadata.pixel_size_m == pytest.approx(scan.pixel_m, rel=1e-6)
    assert found.metadata.probe_energy_eV == pytest.approx(scan_formats.ENERGY_EV, rel=1e-6)
    assert [p for p in check_scan(path) if p.severity == "error"] == []


@pytest.mark.parametrize("name", ["ptychodus", "ptychodus-training"])
def test_the_object_of_ptychodus_is_in_the_frame_of_the_positions(name: str, tmp_path: Path) -> None:
    """[DATA-200]"""
    scan = scan_formats.example()
    found = read_scan(write_example(name, tmp_path))
    np.testing.assert_array_equal(found.object_guess, scan.object)
    if name == "ptychodus":  # either file of the pair will do
        assert_is(read_scan(tmp_path / "product.h5"), scan)


def test_the_sums_are_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[DATA-201] Energy, distance and pixel size become the object pixel, with the numbers."""
    path = write_example("cxi", tmp_path)
    with caplog.at_level(logging.INFO):
        read_scan(path)
    pixel = scan_formats.example().pixel_m
    assert "wavelength x distance / (N x detector pixel)" in caplog.text
    assert f"(32 x 7.5e-05 m) = {pixel:.6g} m" in caplog.text


@pytest.mark.parametrize("name", ["ptypy", *CUBES])
def test_a_format_without_a_probe_says_how_to_make_one(name: str, tmp_path: Path) -> None:
    """[DATA-202] And with one the scan is read."""
    scan = scan_formats.example()
    path = write_example(name, tmp_path)
    with pytest.raises(DataError, match="no probe.*--probe mean"):
        read_scan(path)
    np.savez(tmp_path / "other.npz", probeGuess=scan.probe)
    found = read_scan(path, probe=str(tmp_path / "other.npz"))
    if name == "ptypy":
        assert_is(found, scan)
        np.savez(tmp_path / "bare.npz", diff3d=scan.counts, ycoords=scan.positions[:, 0], xcoords=scan.positions[:, 1])
        assert float((np.abs(read_scan(tmp_path / "bare.npz", probe="mean").probe) ** 2).sum()) > 0
    else:
        np.testing.assert_array_equal(found.counts(slice(None)), scan.counts)
        pixel = 1 / (32 * 0.05) * 1e-10
        assert found.metadata.pixel_size_m == pytest.approx(pixel)
        np.testing.assert_allclose(found.positions[1] - found.positions[0], [0, 2e-10 / pixel])
        np.testing.assert_allclose(found.positions[5] - found.positions[0], [2e-10 / pixel, 0])


def test_basis_vectors_turn_the_positions_of_cxi(tmp_path: Path) -> None:
    """[DATA-203] Axes of the detector along +x and +y mean that the beam moves against the sample."""
    scan = scan_formats.example()
    path = write_example("cxi", tmp_path)
    pixel = scan_formats.DETECTOR_PIXEL_M
    with h5py.File(path, "a") as file:
        file["entry_1/instrument_1/detector_1/basis_vectors"] = np.array([[0, pixel], [pixel, 0], [0, 0]])
    np.testing.assert_allclose(read_scan(path).positions, -scan.positions, atol=1e-6)


def test_the_two_cxi_files_of_ptychodus_are_one_scan(tmp_path: Path) -> None:
    """[DATA-200] Patterns in diffraction.cxi, positions and probe in product.cxi."""
    scan = scan_formats.example()
    path = scan_formats.cxi(tmp_path / "diffraction.cxi", scan)
    scan_formats.cxi(tmp_path / "product.cxi", scan)
    with h5py.File(path, "a") as file:
        del file["entry_1/sample_1"], file["entry_1/data_1/translation"], file["entry_1/image_1"]
    with h5py.File(tmp_path / "product.cxi", "a") as file:
        del file["entry_1/data_1/data"], file["entry_1/instrument_1/detector_1"]
    assert_is(read_scan(path), scan)


def test_a_near_field_scan_is_refused_in_words(shared_data: Path) -> None:
    """[DATA-204] A measured one: PETRA III, P25."""
    with pytest.raises(DataError, match=r"near-field scan.*magnified 3\d\d times.*Near field is not reconstructed"):
        read_scan(shared_data / "petra-p25-near-field.cxi", probe="mean")


@pytest.mark.parametrize("rows", [4, 8])
def test_a_far_field_scan_is_not_taken_for_near_field(rows: int, tmp_path: Path) -> None:
    """[DATA-204]"""
    scan = scan_formats.example(rows=rows)
    assert_is(read_scan(write_example("cxi", tmp_path, scan)), scan)


@pytest.mark.parametrize("name", ["ptychodus", "matlab5"])
def test_an_object_of_several_slices_is_refused_in_words(name: str, tmp_path: Path) -> None:
    """[DATA-204]"""
    scan = scan_formats.example()
    path = write_example(name, tmp_path)
    if name == "ptychodus":
        with h5py.File(tmp_path / "product.h5", "a") as file:
            attributes = dict(file["object"].attrs)
            del file["object"]
            file["object"] = np.stack([scan.object] * 3)
            file["object"].attrs.update(attributes)
    else:
        import scipy.io

        arrays = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
        scipy.io.savemat(path, arrays | {"object": np.stack([scan.object] * 3, axis=2)})
    with pytest.raises(DataError, match="3 slices.*multi-slice objects are not reconstructed"):
        read_scan(path)


def test_a_flag_of_ptychodus_for_near_field_is_believed(tmp_path: Path) -> None:
    """[DATA-204]"""
    path = write_example("ptychodus", tmp_path)
    with h5py.File(tmp_path / "product.h5", "a") as file:
        file.attrs["far_field"] = False
    with pytest.raises(DataError, match="near field is not reconstructed"):
        read_scan(path)


def test_archives_of_ptychonn_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[DATA-207] Positions in metres, or in pixels if they span more than one; that labels are left out is said."""
    scan = scan_formats.example()
    of_metres = write_example("ptychonn", tmp_path)
    np.savez(tmp_path / "pixels.npz", reciprocal=scan.counts, scan=scan.positions)
    for path in (of_metres, tmp_path / "pixels.npz"):
        found = read_scan(path, probe="mean")
        np.testing.assert_array_equal(found.counts(slice(None)), scan.counts)
        np.testing.assert_allclose(found.positions, scan.positions)
        assert found.patches_guess is None
    assert read_scan(of_metres, probe="mean").metadata.pixel_size_m == pytest.approx(scan.pixel_m)
    with caplog.at_level(logging.INFO):
        read_scan(of_metres, probe="mean")
    assert "'position' is read as metres, y before x" in caplog.text
    assert "The patches of 'real' are not read" in caplog.text


@pytest.mark.parametrize("name", ["diff.npz", "X_test.npy", "reciprocal.npz"])
def test_patterns_without_positions_say_what_is_needed(name: str, tmp_path: Path) -> None:
    """[DATA-207] And with the file that is asked for they are a scan; arrays without names in rows, too."""
    scan = scan_formats.example()
    raster = scan.counts.reshape(4, 5, 32, 32)
    path = tmp_path / name
    if name == "X_test.npy":
        np.save(path, raster)
    else:
        np.savez(path, **({"reciprocal": scan.counts} if name == "reciprocal.npz" else {"arr_0": raster}))
    rows = "" if name == "reciprocal.npz" else "4 rows of 5: pattern 5 is the first one of the second row.*"
    with pytest.raises(DataError, match=f"has no positions.*{rows}convert SCAN -o NEW.npz --positions FILE"):
        read_scan(path, probe="mean")
    np.savetxt(tmp_path / "positions.txt", scan.positions)
    reading = ReadOptions(measurement=Measurement.COUNTS, probe="mean")
    conversion = ConversionOptions(positions=str(tmp_path / "positions.txt"))
    found = convert_scan(path, tmp_path / "new.npz", reading, conversion)
    np.testing.assert_array_equal(found.counts(slice(None)), scan.counts)
    np.testing.assert_allclose(found.positions, scan.positions)


def test_patterns_without_a_name_are_not_guessed_to_be_amplitudes(tmp_path: Path) -> None:
    """[DATA-207] Whole counts are counts; other numbers may be either, and the command says which."""
    scan = scan_formats.example()
    np.savetxt(tmp_path / "positions.txt", scan.positions)
    conversion = ConversionOptions(positions=str(tmp_path / "positions.txt"))
    np.save(tmp_path / "whole.npy", scan.counts.astype(np.uint16))
    found = convert_scan(tmp_path / "whole.npy", tmp_path / "new.npz", ReadOptions(probe="mean"), conversion)
    np.testing.assert_array_equal(found.counts(slice(None)), scan.counts)
    np.save(tmp_path / "scaled.npy", (scan.counts * 0.7).astype(np.float32))
    with pytest.raises(DataError, match=r"Counts and amplitudes are both possible.*--measurement"):
        convert_scan(tmp_path / "scaled.npy", tmp_path / "no.npz", ReadOptions(probe="mean"), conversion)


def test_labels_alone_are_refused(tmp_path: Path) -> None:
    """[DATA-207]"""
    np.save(tmp_path / "amp_pha.npy", np.ones((3, 32, 32), np.complex64))
    with pytest.raises(DataError, match="reconstructed patches, not patterns"):
        read_scan(tmp_path / "amp_pha.npy")


@pytest.mark.parametrize("unit", ["m", "px"])
def test_pairs_of_ptychofm_are_read(unit: str, tmp_path: Path) -> None:
    """[DATA-207] From either file, with their object; centre, width and geometry need not be there."""
    scan = scan_formats.example()
    path = write_example("ptychofm", tmp_path)
    para = tmp_path / "scan_para.hdf5"
    middle = (np.array(scan.object.shape) - 1) / 2
    if unit == "px":
        with h5py.File(para, "a") as file:
            for name in ("center_y_m", "center_x_m", "pixel_width_m"):
                del file["object"].attrs[name]
            del file["probe_position_indexes"], file.attrs["photon_energy_eV"], file["object_layer_spacing_m"]
            for axis, values in zip("yx", (scan.positions - middle).T, strict=True):
                file[f"probe_position_{axis}_m"][:] = values
    for file in (path, para):
        found = read_scan(file)
        np.testing.assert_array_equal(found.counts(slice(None)), scan.counts)
        np.testing.assert_array_equal(found.probe, scan.probe)
        np.testing.assert_allclose(found.positions, scan.positions, atol=1e-6)
        np.testing.assert_array_equal(found.object_guess, scan.object)
        assert found.metadata.pixel_size_m == pytest.approx(scan.pixel_m)
    path.unlink()
    with pytest.raises(DataError, match="scan_dp.hdf5 is not there"):
        read_scan(para)


def test_one_file_of_a_pair_says_what_is_missing(tmp_path: Path) -> None:
    """[DATA-200]"""
    path = write_example("ptychodus", tmp_path)
    (tmp_path / "product.h5").unlink()
    with pytest.raises(DataError, match="no product file lies beside it"):
        read_scan(path)


def test_what_no_reader_knows_is_listed(tmp_path: Path) -> None:
    """[DATA-205] Groups and datasets that are there."""
    path = tmp_path / "strange.h5"
    with h5py.File(path, "w") as file:
        file["measurement/frames"] = np.zeros((2, 5, 5))
        file["positions"] = np.zeros(2)
    with pytest.raises(DataError, match=r"/measurement/frames \(2, 5, 5\) float64"):
        read_scan(path)


def test_arrays_one_group_down_are_found(tmp_path: Path) -> None:
    """[DATA-026]"""
    scan = scan_formats.example()
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        group = file.create_group("raw/data")
        group["diff3d"], group["probeGuess"], group["bad_pixels"] = scan.counts, scan.probe, scan.bad
        group["ycoords"], group["xcoords"] = scan.positions.T
    assert_is(read_scan(tmp_path / "scan.h5"), scan)


def test_a_position_unit_that_is_not_known_is_refused(tmp_path: Path) -> None:
    """[DATA-201]"""
    path = write_example("nexus", tmp_path)
    with h5py.File(path, "a") as file:
        file["entry_1/sample_1/geometry_1/translation"].attrs["units"] = "furlong"
    with pytest.raises(DataError, match="unit 'furlong'"):
        read_scan(path)


def test_metres_without_a_geometry_say_what_is_missing(tmp_path: Path) -> None:
    """[DATA-201]"""
    path = write_example("cxi", tmp_path)
    with h5py.File(path, "a") as file:
        del file["entry_1/instrument_1/detector_1/distance"]
    with pytest.raises(DataError, match="lacks distance.*--pixel-size"):
        read_scan(path)


def test_each_format_has_one_reader(tmp_path: Path) -> None:
    """[DATA-200] No two readers of the core take the same file."""
    for name in FORMATS:
        folder = tmp_path / name
        folder.mkdir()
        path = write_example(name, folder)
        assert [reader.name for reader in CORE_READERS if knows(reader, path)] == [
            {"nxptycho": "nexus", "eiger": "nexus", "matlab5": "matlab", "matlab73": "matlab"}.get(
                name, "zarr" if name.startswith("zarr") else name
            )
        ]
        assert read_with(CORE_READERS, path) is not None
