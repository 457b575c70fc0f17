"""Products as CXI and NeXus: specs/06-product.md."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptychopinn.errors import DataError, UsageError
from ptychopinn.product import SUFFIXES, Product, ProductFormat, product_formats, read_product, write_product_as

ODD = 1e-8 / 3  # no number of metres comes back from pixels exactly


def product(**changes: Any) -> Product:
    rng = np.random.default_rng(0)

    def complex_array(*shape: int) -> Any:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)

    whole = Product(
        name="a scan µ",
        positions=rng.uniform(-7, 90, (6, 2)),
        probe=complex_array(2, 8, 8),
        object=complex_array(20, 31),
        origin=(-3, 5),
        indexes=np.array([0, 1, 2, 5, 4, 9]),
        comments="two\nlines",
        pixel_size_m=(ODD, 1.1 * ODD),
        energy_eV=8123.4,
        detector_distance_m=1.9,
        photon_count=1e5 / 3,
        exposure_time_s=0.1,
        losses=((1, 0.5), (2, 1 / 3)),
        coverage=rng.random((20, 31)).astype(np.float32),
        flux=rng.random(6).astype(np.float32),
        background=rng.random((8, 8)).astype(np.float32),
    )
    return replace(whole, **changes)


def assert_same(found: Product, expected: Product) -> None:
    for field in fields(Product):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(other, np.ndarray):
            assert one.dtype == other.dtype, field.name
            np.testing.assert_array_equal(one, other, err_msg=field.name)
        else:
            assert one == other, field.name


@pytest.mark.parametrize("form", ProductFormat)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pixel_size_m": None, "energy_eV": None, "detector_distance_m": None, "photon_count": None, "losses": ()},
        {"coverage": None, "flux": None, "background": None, "exposure_time_s": None, "comments": ""},
    ],
    ids=["whole", "no geometry", "no arrays"],
)
def test_a_round_trip_is_exact(form: ProductFormat, changes: dict[str, Any], tmp_path: Path) -> None:
    """[PROD-020] Bit by bit."""
    path = tmp_path / f"result{SUFFIXES[form]}"
    given = product(**changes)
    write_product_as(path, given, form)
    assert_same(read_product(path), given)


def test_cxi_has_the_names_of_ptychodus(tmp_path: Path) -> None:
    """[PROD-020] In metres: a position minus the object's centre, over a pixel, is a pixel of the object."""
    given = product()
    write_product_as(tmp_path / "result.cxi", given, ProductFormat.CXI)
    with h5py.File(tmp_path / "result.cxi") as file:
        entry = file["entry_1"]
        np.testing.assert_array_equal(entry["image_1/data"], given.probe)
        centre = [entry[f"ptychodus/object_center_{axis}_m"][()] for axis in "yx"]
        pixel = [entry[f"ptychodus/object_pixel_{side}_m"][()] for side in ("height", "width")]
        metres = entry["data_1/translation"][()][:, 1::-1]
        local = (metres - centre) / pixel + (np.array(given.object.shape) - 1) / 2
        np.testing.assert_allclose(local, given.local_positions)
        assert entry["instrument_1/source_1/energy"][()] == pytest.approx(8123.4 * 1.602176634e-19)


def test_nexus_says_what_is_plotted(tmp_path: Path) -> None:
    """[PROD-020]"""
    given = product()
    write_product_as(tmp_path / "result.nxs", given, ProductFormat.NEXUS)
    with h5py.File(tmp_path / "result.nxs") as file:
        data = file[file.attrs["default"]]
        plotted = data[data.attrs["default"]]
        np.testing.assert_array_equal(plotted[plotted.attrs["signal"]], given.object)
        np.testing.assert_allclose(plotted["x"], (np.arange(31) + 5) * 1.1 * ODD)
        assert plotted["x"].attrs["units"] == "m"


@pytest.mark.parametrize("form", ProductFormat)
def test_a_damaged_one_is_refused(form: ProductFormat, tmp_path: Path) -> None:
    """[PROD-020] [HARD-001]"""
    path = tmp_path / f"result{SUFFIXES[form]}"
    write_product_as(path, product(), form)
    with h5py.File(path, "a") as file:
        entry = next(iter(group for group in file.values() if isinstance(group, h5py.Group)))
        del entry["ptychopinn/losses"]
        entry["ptychopinn/losses"] = h5py.ExternalLink("/etc/passwd", "/losses")
    with pytest.raises(DataError, match="not in the folder"):
        read_product(path)


def test_a_format_that_is_none_is_refused() -> None:
    """[PROD-020]"""
    assert product_formats(["CXI", "nexus", "cxi"]) == (ProductFormat.CXI, ProductFormat.NEXUS)
    with pytest.raises(UsageError, match="cxi, nexus"):
        product_formats(["tiff"])
