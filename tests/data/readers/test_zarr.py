"""Stores of zarr that are not in order, or not to be trusted: specs/24-formats.md."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scan_formats

from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.io import read_scan
from ptychopinn.data.open_scan import open_scan
from ptychopinn.errors import DataError, PluginError


def store(folder: Path) -> Path:
    return scan_formats.zarr2(folder / "scan.zarr", scan_formats.example())


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a file of metadata."""
    found = json.loads(path.read_text())
    edit(found)
    path.write_text(json.dumps(found))


def fails(path: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as refused:
        read_scan(path, probe="mean")
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "not unpickled"),
        ({"filters": [{"id": "pickle", "protocol": 5}]}, "needs pickle"),
        ({"compressor": {"id": "json2"}}, "needs json2"),
        ({"dimension_separator": "/../../"}, "separator"),
        ({"shape": [1 << 40, 5, 32, 32]}, "claims"),
        ({"chunks": [1 << 30, 1 << 30, 32, 20]}, "claims"),
        ({"chunks": [3, 2]}, "chunks"),
        ({"shape": "no"}, "no shape"),
    ],
)
def test_what_may_run_code_or_fill_memory_is_refused(entry: dict[str, Any], match: str, tmp_path: Path) -> None:
    """[DATA-209] [HARD-003] Before zarr opens it."""
    path = store(tmp_path)
    change(path / "cube/data/.zarray", lambda found: found.update(entry))
    fails(path, match)


def test_codecs_within_shards_are_looked_at_too(tmp_path: Path) -> None:
    """[DATA-209]"""
    path = scan_formats.zarr3(tmp_path / "scan.zspy", scan_formats.example())
    inner = {"name": "numcodecs.pickle", "configuration": {}}
    shard = {"name": "sharding_indexed", "configuration": {"codecs": [inner], "index_codecs": []}}
    change(path / "Experiments/scan/data/zarr.json", lambda found: found.update(codecs=[shard]))
    fails(path, "needs numcodecs.pickle")


def test_no_link_is_followed(tmp_path: Path) -> None:
    """[DATA-209] Neither to a file nor to a folder."""
    path = store(tmp_path)
    chunk = next((path / "cube/data").glob("[0-9]*"))
    os.replace(chunk, tmp_path / "elsewhere")
    chunk.symlink_to(tmp_path / "elsewhere")
    fails(path, "is a link")


def test_chunks_that_are_not_stored_are_counted(tmp_path: Path) -> None:
    """[DATA-209] zarr fills them, which is not silent."""
    path = store(tmp_path)
    next((path / "cube/data").glob("[0-9]*")).unlink()
    file = open_scan(path, ReadOptions(probe="mean"))
    assert any("1 of the 12 chunks" in warning for warning in file.warnings)


def test_the_array_and_its_calibration_must_be_clear(tmp_path: Path) -> None:
    """[DATA-208]"""
    path = store(tmp_path)
    change(path / ".zattrs", lambda found: found["calibration"].pop("Q_pixel_size"))
    fails(path, r"calibrated.*'A\^-1'.*\(y, x\)")
    data = path / "cube/data"
    (path / "other").mkdir()
    (path / "other/.zarray").write_text((data / ".zarray").read_text())
    fails(path, "2 arrays of four axes.*other .*cube/data")


def test_axes_in_another_order_are_refused(tmp_path: Path) -> None:
    """[DATA-208]"""
    path = scan_formats.zarr3(tmp_path / "scan.zspy", scan_formats.example())
    change(path / "Experiments/scan/axis-1/zarr.json", lambda found: found["attributes"].update(navigate=False))
    fails(path, "not two of the scan")


def test_a_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    """[DATA-209] JSON that is none, a chunk that is none, a zip that is none."""
    path = store(tmp_path)
    chunk = next((path / "cube/data").glob("[0-9]*"))
    content = chunk.read_bytes()
    chunk.write_bytes(content[: len(content) // 2])
    fails(path, "cannot be read")
    (path / "cube/data/.zarray").write_text("{")
    fails(path, ".zarray is no JSON")
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        archive.writestr(".zgroup", "[]")
    fails(tmp_path / "scan.zip", "no JSON object")


def test_without_zarr_the_way_to_install_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[DATA-209]"""
    path = store(tmp_path)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(PluginError, match=r"zarr 3 is not installed.*pip install .zarr>=3"):
        read_scan(path, probe="mean")


def test_a_name_with_dots_and_whole_numbers_of_other_orders_are_read(tmp_path: Path) -> None:
    """[DATA-208] Fortran order and big-endian numbers."""
    import zarr

    counts = scan_formats.example().counts.reshape(4, 5, 32, 32)
    path = tmp_path / "a.b.zarr"
    array = zarr.create_array(path, shape=counts.shape, chunks=counts.shape, dtype=">u2", zarr_format=2, order="F")
    array[:] = counts
    change(path / ".zattrs", lambda found: found.update(R_pixel_size=2.0, R_pixel_units="A"))
    change(path / ".zattrs", lambda found: found.update(Q_pixel_size=0.05, Q_pixel_units="1/A"))
    found = read_scan(path, probe="mean")
    np.testing.assert_array_equal(found.counts(slice(None)), counts.reshape(20, 32, 32))
