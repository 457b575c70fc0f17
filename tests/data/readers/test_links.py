"""Links and virtual datasets lead to files of the same folder, and nowhere else: specs/01-data.md."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scan_formats

from ptychopinn.data import hdf5_tree
from ptychopinn.data.io import read_scan
from ptychopinn.errors import DataError


def scan_with(folder: Path, link: object) -> Path:
    """A scan of the contract whose patterns are a link."""
    scan = scan_formats.example()
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        file["diff3d"] = link
        file["probeGuess"] = scan.probe
        file["ycoords"], file["xcoords"] = scan.positions.T
    return path


def neighbour(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["raw/frames"] = scan_formats.example().counts
    return path


def assert_read(path: Path) -> None:
    scan = scan_formats.example()
    np.testing.assert_array_equal(read_scan(path).counts(slice(None)), scan.counts)


def test_links_inside_the_file_are_followed(tmp_path: Path) -> None:
    """[DATA-026] Soft links, also of soft links."""
    path = scan_with(tmp_path, h5py.SoftLink("/here"))
    with h5py.File(path, "a") as file:
        file["here"] = h5py.SoftLink("raw/frames")
        file["raw/frames"] = scan_formats.example().counts
    assert_read(path)


def test_links_to_the_same_folder_are_followed(tmp_path: Path) -> None:
    """[DATA-026]"""
    neighbour(tmp_path / "frames.h5")
    assert_read(scan_with(tmp_path, h5py.ExternalLink("frames.h5", "/raw/frames")))


def test_virtual_datasets_of_the_same_folder_are_read(tmp_path: Path) -> None:
    """[DATA-026]"""
    neighbour(tmp_path / "frames.h5")
    assert_read(virtual(tmp_path, "frames.h5"))


def virtual(folder: Path, source: str) -> Path:
    counts = scan_formats.example().counts
    path = scan_with(folder, h5py.SoftLink("/virtual"))
    layout = h5py.VirtualLayout(counts.shape, counts.dtype)
    layout[:] = h5py.VirtualSource(source, "raw/frames", counts.shape)
    with h5py.File(path, "a", libver="latest") as file:
        file.create_virtual_dataset("virtual", layout)
    return path


@pytest.mark.parametrize("where", ["../frames.h5", "sub/frames.h5", "{absolute}"])
@pytest.mark.parametrize("kind", ["link", "virtual"])
def test_other_folders_are_refused_by_name(tmp_path: Path, where: str, kind: str) -> None:
    """[DATA-026]"""
    folder = tmp_path / "scan"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder / "sub"):
        neighbour(place / "frames.h5")
    name = where.format(absolute=tmp_path / "frames.h5")
    path = virtual(folder, name) if kind == "virtual" else scan_with(folder, h5py.ExternalLink(name, "/raw/frames"))
    with pytest.raises(DataError, match=r"frames\.h5', which is not in the folder of scan\.h5; it is not opened"):
        read_scan(path)


def test_a_link_of_the_file_system_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """[DATA-026]"""
    folder = tmp_path / "scan"
    folder.mkdir()
    neighbour(tmp_path / "frames.h5")
    (folder / "frames.h5").symlink_to(tmp_path / "frames.h5")
    with pytest.raises(DataError, match="a link out of the folder"):
        read_scan(scan_with(folder, h5py.ExternalLink("frames.h5", "/raw/frames")))


def test_a_neighbour_cannot_lead_elsewhere(tmp_path: Path) -> None:
    """[DATA-026] A link of a linked file, and the source of a virtual one, obey the same rule."""
    folder = tmp_path / "scan"
    folder.mkdir()
    neighbour(tmp_path / "frames.h5")
    with h5py.File(folder / "between.h5", "w") as file:
        file["raw/frames"] = h5py.ExternalLink("../frames.h5", "/raw/frames")
    with pytest.raises(DataError, match="not in the folder"):
        read_scan(scan_with(folder, h5py.ExternalLink("between.h5", "/raw/frames")))
    with pytest.raises(DataError, match="not there, or a link"):
        read_scan(virtual(folder, "between.h5"))


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    """[DATA-026] [HARD-002]"""
    path = scan_with(tmp_path, h5py.SoftLink("/a"))
    with h5py.File(path, "a") as file:
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
    with pytest.raises(DataError, match="loop of links"):
        read_scan(path)


def test_a_filter_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[DATA-206] The error names the filter and the package."""
    path = scan_with(tmp_path, np.zeros(1))
    with h5py.File(path, "a") as file:
        del file["diff3d"]
        file.create_dataset("diff3d", data=scan_formats.example().counts, chunks=(1, 32, 32), compression="gzip")
    monkeypatch.setattr(hdf5_tree.h5py.h5z, "filter_avail", lambda code: False)
    monkeypatch.setitem(__import__("sys").modules, "hdf5plugin", None)
    with pytest.raises(DataError, match=r"filter 1 .*hdf5plugin is not installed.*pip install hdf5plugin"):
        read_scan(path)


def test_filters_of_hdf5plugin_are_used(tmp_path: Path) -> None:
    """[DATA-206]"""
    plugin = pytest.importorskip("hdf5plugin", reason="hdf5plugin is not installed")
    path = scan_with(tmp_path, np.zeros(1))
    with h5py.File(path, "a") as file:
        del file["diff3d"]
        file.create_dataset(
            "diff3d", data=scan_formats.example().counts, chunks=(1, 32, 32), **plugin.Bitshuffle(cname="lz4")
        )
    assert_read(path)


def test_a_damaged_collection_of_texts_does_not_hang(tmp_path: Path) -> None:
    """[HARD-002] A free object of size 0 would be an endless loop of the HDF5 library."""
    path = tmp_path / "scan.nxs"
    scan_formats.nexus(path, scan_formats.example())
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL")
    content[at + 16 : at + 48] = bytes(32)
    path.write_bytes(content)
    with pytest.raises(DataError, match="texts are damaged"):
        read_scan(path)
