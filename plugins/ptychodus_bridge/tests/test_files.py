"""Files that Ptychodus writes are read, and files for it are opened (specs/24-formats.md, specs/06-product.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")

from bridge_scans import make_input, simulated
from ptychodus.api import io
from ptychodus.api.assemble import AssembledDiffractionData
from ptychodus.api.geometry import PixelGeometry
from ptychodus.api.io import save_diffraction_data, save_product
from ptychodus.plugins.cxi_file import CXIDiffractionFileReader, CXIProductFileIO

from ptychopinn.data.cxi_writer import write_cxi_scan
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.product import Product, ProductFormat, write_product_as
from ptychopinn_ptychodus.conversion import positions_px


def assert_same(found: ScanDataset, expected: ScanDataset) -> None:
    np.testing.assert_allclose(found.positions, expected.positions, atol=1e-9)
    np.testing.assert_array_equal(found.counts(slice(None)), expected.counts(slice(None)))
    np.testing.assert_array_equal(found.probe, expected.probe)
    assert found.object_guess is not None
    np.testing.assert_array_equal(found.object_guess, expected.object_guess)


def test_training_data_of_ptychodus_are_read(tmp_path: Path) -> None:
    """[DATA-200] Written by the release that is installed."""
    scan = simulated()
    if not hasattr(io, "save_training_data"):
        pytest.skip("Ptychodus 1.6 writes no such file")
    io.save_training_data(tmp_path / "train.h5", make_input(scan))
    assert_same(read_scan(tmp_path / "train.h5"), scan)


@pytest.mark.parametrize("given", ["diffraction.h5", "product.h5"])
def test_the_pair_of_ptychodus_is_read(given: str, tmp_path: Path) -> None:
    """[DATA-200] From either file."""
    scan = simulated()
    handed = make_input(scan)
    data = AssembledDiffractionData(
        np.arange(len(scan)), handed.diffraction_patterns, PixelGeometry(75e-6, 75e-6), handed.bad_pixels
    )
    save_diffraction_data(tmp_path / "diffraction.h5", data)
    save_product(tmp_path / "product.h5", handed.product)
    assert_same(read_scan(tmp_path / given), scan)


def test_ptychodus_opens_our_scans(tmp_path: Path) -> None:
    """[DATA-225] Patterns and geometry with its reader of diffraction files."""
    scan = simulated()
    known = {"pixel_size_m": 2e-8, "probe_energy_eV": 8000.0, "detector_distance_m": 2.0}
    scan = replace(scan, metadata=scan.metadata.model_copy(update=known))
    write_cxi_scan(tmp_path / "scan.cxi", scan)
    patterns = CXIDiffractionFileReader().read(tmp_path / "scan.cxi")
    found = np.concatenate([array.get_patterns() for array in patterns])
    np.testing.assert_array_equal(found, scan.counts(slice(None)))
    assert patterns.get_metadata().detector_distance_m == 2.0


@pytest.mark.parametrize("with_object", [True, False])
def test_ptychodus_opens_a_scan_in_cxi_as_a_product(with_object: bool, tmp_path: Path) -> None:
    """[DATA-225] Positions and probe of the file, with its object or a flat one."""
    scan = simulated()
    metadata = scan.metadata.model_copy(update={"pixel_size_m": 2e-8, "probe_energy_eV": 8000.0})
    scan = replace(scan, metadata=metadata, object_guess=scan.object_guess if with_object else None)
    write_cxi_scan(tmp_path / "scan.cxi", scan)
    found = CXIProductFileIO().read(tmp_path / "scan.cxi")
    places, obj = positions_px(found), found.object_.get_array()[0]
    np.testing.assert_array_equal(found.probes.get_array()[0], scan.probe)
    if scan.object_guess is None:
        np.testing.assert_allclose(places - places[0], scan.positions - scan.positions[0], atol=1e-6)
        assert (places.min(axis=0) >= scan.N / 2 - 1).all()
        assert (places.max(axis=0) <= np.array(obj.shape) - scan.N / 2).all()
        assert (obj == 1).all()
    else:
        np.testing.assert_allclose(places, scan.positions, atol=1e-6)
        np.testing.assert_array_equal(obj, scan.object_guess)


def test_ptychodus_opens_our_cxi(tmp_path: Path) -> None:
    """[PROD-020] Positions, probe and object are where they were."""
    scan = simulated()
    assert scan.object_guess is not None
    given = Product(
        "scan",
        scan.positions,
        scan.probe,
        scan.object_guess,
        origin=(-4, 3),
        pixel_size_m=(2e-8, 3e-8),
        energy_eV=8000.0,
        detector_distance_m=2.0,
        losses=((1, 0.5),),
    )
    write_product_as(tmp_path / "result.cxi", given, ProductFormat.CXI)
    found = CXIProductFileIO().read(tmp_path / "result.cxi")
    np.testing.assert_allclose(positions_px(found), given.local_positions, atol=1e-6)
    np.testing.assert_array_equal(found.probes.get_array()[0], given.probe)
    np.testing.assert_array_equal(found.object_.get_array()[0], given.object)
    energy = getattr(found.metadata, "photon_energy_eV", None) or found.metadata.probe_energy_eV  # of 1.6
    assert energy == pytest.approx(8000)
