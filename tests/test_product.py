"""Ptychodus products: round trips, agreement with Ptychodus itself, and refusals of what is not safe."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychopinn.data.dataset import Measurement, ScanDataset, ScanMetadata
from ptychopinn.errors import DataError, ResourceError, UsageError
from ptychopinn.probe_variation import ProbeVariation
from ptychopinn.product import (
    PLACEHOLDER_DISTANCE_M,
    PLACEHOLDER_ENERGY_EV,
    PLACEHOLDER_PIXEL_SIZE_M,
    Product,
    product_of,
    read_product,
    write_product,
)


def make_variation(product: Product) -> ProbeVariation:
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(len(product.positions), 3)).astype(np.float32)
    return ProbeVariation(rng.normal(size=(3, 16, 16)).astype(np.complex64), weights)


def make_product(**changes) -> Product:
    """An asymmetric product: nothing about it survives a swap of axes."""
    rng = np.random.default_rng(0)
    obj = rng.normal(size=(31, 44)) + 1j * rng.normal(size=(31, 44))
    probe = rng.normal(size=(2, 16, 16)) + 1j * rng.normal(size=(2, 16, 16))
    positions = rng.uniform((-5, 20), (15, 50), size=(7, 2))
    product = Product(
        name="scan 12",
        positions=positions,
        probe=probe,
        object=obj,
        origin=(-9, 12),
        indexes=np.array([3, 1, 4, 15, 9, 2, 6]),
        comments="first\nsecond",
        pixel_size_m=(7e-9, 9e-9),
        energy_eV=8800.0,
        detector_distance_m=1.9,
        photon_count=4.6e5,
        exposure_time_s=0.1,
        losses=((1, 0.5), (2, float("nan")), (10, 0.25)),
        coverage=rng.uniform(size=(31, 44)),
    )
    return replace(product, **changes)


@pytest.fixture
def written(tmp_path) -> Path:
    """A good file to spoil."""
    path = tmp_path / "product.h5"
    write_product(path, make_product())
    return path


def test_round_trip(written):
    """[PROD-001] Everything comes back, positions in the object's own array."""
    product, back = make_product(), read_product(written)
    assert back.origin == (0, 0)
    assert np.allclose(back.positions, product.local_positions, rtol=0, atol=1e-9)
    for name in ("indexes", "probe", "object", "coverage"):
        assert np.array_equal(getattr(back, name), getattr(product, name)), name
    for name in ("name", "comments", "pixel_size_m", "energy_eV", "detector_distance_m", "photon_count"):
        assert getattr(back, name) == getattr(product, name), name
    assert back.exposure_time_s == 0.1
    assert back.losses[::2] == product.losses[::2]
    assert np.isnan(back.losses[1][1])


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    origin=st.tuples(st.integers(-3000, 3000), st.integers(-3000, 3000)),
    position=st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000)),
    pixel=st.tuples(st.floats(1e-10, 1e-5), st.floats(1e-10, 1e-5)),
)
def test_positions_come_back(tmp_path_factory, shape, origin, position, pixel):
    """[PROD-001] Whatever the frame and the pixel size, positions are the same pixels of the object."""
    path = tmp_path_factory.mktemp("product") / "p.h5"
    product = make_product(
        object=np.ones(shape, complex), coverage=None, origin=origin, pixel_size_m=pixel,
        positions=np.array([position]), indexes=None,
    )  # fmt: skip
    write_product(path, product)
    assert np.allclose(read_product(path).positions, product.local_positions, rtol=0, atol=1e-8)


def test_metres(written):
    """[PROD-002] position_px = (x_m - center_x_m) / pixel + (W - 1) / 2, x with columns, y with rows."""
    product = make_product()
    with h5py.File(written) as file:
        obj = file["object"]
        assert obj.shape == (1, 31, 44)
        assert file["probe"].shape == (1, 2, 16, 16)
        for column, axis, side, size in ((0, "y", "height", 31), (1, "x", "width", 44)):
            metres = file[f"probe_position_{axis}_m"][()]
            pixel = obj.attrs[f"pixel_{side}_m"]
            assert file["probe"].attrs[f"pixel_{side}_m"] == pixel == product.pixel_size_m[column]
            indices = (metres - obj.attrs[f"center_{axis}_m"]) / pixel + (size - 1) / 2
            assert np.allclose(indices, product.local_positions[:, column], atol=1e-9)
            # metres are counted from pixel 0 of the positions' frame
            assert np.allclose(metres, product.positions[:, column] * pixel)


def test_placeholders_are_named_and_come_back_as_none(tmp_path):
    """[PROD-003] What is not known is a placeholder that the comments name, once, however often it is written."""
    path = tmp_path / "p.h5"
    unknown = {"pixel_size_m": None, "energy_eV": None, "detector_distance_m": None}
    product = make_product(**unknown, photon_count=None, exposure_time_s=None)
    for _ in range(2):
        write_product(path, product)
        with h5py.File(path) as file:
            assert file["object"].attrs["pixel_width_m"] == PLACEHOLDER_PIXEL_SIZE_M == 1e-8
            assert file.attrs["photon_energy_eV"] == PLACEHOLDER_ENERGY_EV == 10_000
            assert file.attrs["detector_object_distance_m"] == PLACEHOLDER_DISTANCE_M == 1
            assert file.attrs["probe_photon_count"] == 0
            assert file.attrs["comments"] == (
                "first\nsecond\nPlaceholders, not measured: pixel size 1e-08 m, photon energy 10000 eV, "
                "detector distance 1 m."
            )
        product = read_product(path)
        assert (product.pixel_size_m, product.energy_eV, product.detector_distance_m) == (None, None, None)
        assert (product.photon_count, product.exposure_time_s) == (None, None)
        assert product.comments == "first\nsecond"
    assert np.allclose(product.positions, make_product().local_positions)
    write_product(path, make_product(energy_eV=None))
    assert read_product(path).pixel_size_m == (7e-9, 9e-9)


def test_product_of_a_scan():
    """[PROD-004] Positions, name and metadata are taken from the scan."""
    meta = ScanMetadata(pixel_size_m=5e-9, probe_energy_eV=9000, detector_distance_m=2.5, nphotons=1e6)
    positions = np.array([[10.5, 12.0], [14.0, 9.25], [8.0, 8.0]])
    data = ScanDataset(
        np.ones((3, 8, 8)), Measurement.COUNTS, positions, np.ones((1, 8, 8)), metadata=meta, name="star"
    )
    product = product_of(data, np.ones((20, 30), complex), data.probe * 2, origin=(1, 2))
    assert np.array_equal(product.positions, positions)
    assert np.array_equal(product.local_positions, positions - (1, 2))
    assert (product.name, product.pixel_size_m) == ("star", (5e-9, 5e-9))
    assert (product.energy_eV, product.detector_distance_m, product.photon_count) == (9000, 2.5, 1e6)
    assert np.array_equal(product.probe, data.probe * 2)
    bare = product_of(replace(data, metadata=ScanMetadata()), np.ones((20, 30), complex), data.probe)
    assert (bare.pixel_size_m, bare.energy_eV, bare.photon_count) == (None, None, None)


def test_ptychodus_reads_what_we_write(tmp_path):
    """[PROD-005] Ptychodus's own loader opens the file and finds the same pixels; the coverage does not disturb it."""
    io = pytest.importorskip("ptychodus.api.io", reason="ptychodus is not installed")
    for number, product in enumerate((make_product(), make_product(losses=(), pixel_size_m=None, energy_eV=None))):
        path = tmp_path / f"product{number}.h5"
        write_product(path, product)
        theirs = io.load_product(path)
        geometry = theirs.object_.get_geometry()
        x = geometry.map_probe_positions_to_object_x_px(theirs.probe_positions)
        y = geometry.map_probe_positions_to_object_y_px(theirs.probe_positions)
        assert np.allclose(np.stack([y, x], axis=1), product.local_positions, atol=1e-9)
        assert np.array_equal(theirs.probe_positions.get_indexes(), product.indexes)
        assert np.array_equal(theirs.object_.get_layer(0), product.object)
        assert np.array_equal(theirs.probes.get_probe_no_opr().get_array(), product.probe)
        assert theirs.metadata.name == "scan 12"
        assert theirs.metadata.comments.startswith("first\nsecond")
        assert theirs.metadata.probe_photon_count == 4.6e5
        varying = replace(product, variation=make_variation(product))
        write_product(path, varying)
        for weights, probe in zip(varying.variation.weights, io.load_product(path).probes, strict=True):
            own = product.probe.copy()
            own[0] += np.tensordot(weights, varying.variation.modes, axes=1)
            assert np.allclose(probe.get_array(), own, atol=1e-5)
        assert [loss.epoch for loss in theirs.losses] == [epoch for epoch, _ in product.losses]


def test_we_read_what_ptychodus_writes(tmp_path):
    """[PROD-005] A product saved by Ptychodus, with layers, position-dependent probes and zero metadata."""
    io = pytest.importorskip("ptychodus.api.io", reason="ptychodus is not installed")
    from ptychodus.api.geometry import PixelGeometry
    from ptychodus.api.object import Object, ObjectCenter
    from ptychodus.api.probe import ProbeSequence
    from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
    from ptychodus.api.product import LossValue, ProductMetadata
    from ptychodus.api.product import Product as TheirProduct

    rng = np.random.default_rng(1)
    layers = rng.normal(size=(2, 12, 17)) + 1j * rng.normal(size=(2, 12, 17))
    probes = rng.normal(size=(3, 2, 8, 8)) + 1j * rng.normal(size=(3, 2, 8, 8))
    points = [ProbePosition(i, 1e-6 * x, 1e-6 * y) for i, (y, x) in enumerate(rng.normal(size=(5, 2)))]
    pixel = PixelGeometry(width_m=3e-8, height_m=2e-8)
    theirs = TheirProduct(
        metadata=ProductMetadata("n", "c", -1.5, 7000.0, 0.0, 0.0, 0.0, 0.0),
        probe_positions=ProbePositionSequence(points),
        probes=ProbeSequence(probes, rng.normal(size=(5, 3)), pixel),
        object_=Object(layers, pixel, ObjectCenter(x_m=4e-7, y_m=-3e-7), [1e-6]),
        losses=[LossValue(1, 0.5)],
    )
    io.save_product(tmp_path / "theirs.h5", theirs)
    product = read_product(tmp_path / "theirs.h5")
    geometry = theirs.object_.get_geometry()
    assert np.allclose(product.positions[:, 1], geometry.map_probe_positions_to_object_x_px(theirs.probe_positions))
    assert np.allclose(product.positions[:, 0], geometry.map_probe_positions_to_object_y_px(theirs.probe_positions))
    assert np.allclose(product.object, layers[0] * layers[1])
    assert np.allclose(product.probe[1], probes[0, 1])
    ours = product.probe[0] + np.tensordot(product.variation.weights, product.variation.modes, axes=1)
    assert np.allclose(ours, [probe.get_array()[0] for probe in theirs.probes], atol=1e-5)
    assert product.pixel_size_m == (2e-8, 3e-8)
    assert (product.energy_eV, product.detector_distance_m, product.photon_count) == (7000, None, None)
    assert product.losses == ((1, 0.5),)
    assert product.coverage is None


@pytest.mark.parametrize("ndim", [2, 3, 4])
def test_older_layouts(written, ndim):
    """[PROD-006] Objects and probes without their leading axes, the older name of the energy, no losses."""
    product = make_product()
    with h5py.File(written, "a") as file:
        obj_attrs, probe_attrs = dict(file["object"].attrs), dict(file["probe"].attrs)
        for name in ("object", "probe", "loss_epochs", "loss_values", "coverage", "object_layer_spacing_m"):
            del file[name]
        file["object"] = product.object.astype(complex)
        probe = {2: product.probe[0], 3: product.probe, 4: np.stack([product.probe, 0 * product.probe])}[ndim]
        file["probe"] = probe
        file["object"].attrs.update(obj_attrs)
        file["probe"].attrs.update(probe_attrs)
        del file.attrs["photon_energy_eV"], file.attrs["detector_object_distance_m"], file.attrs["name"]
        file.attrs["probe_energy_eV"] = 8000
        file.attrs["comments"] = np.bytes_("bytes")
    back = read_product(written)
    assert np.array_equal(back.object, product.object)
    assert np.array_equal(back.probe, product.probe[:1] if ndim == 2 else product.probe)
    assert (back.energy_eV, back.detector_distance_m, back.losses) == (8000, None, ())
    assert (back.name, back.comments) == ("Unnamed", "bytes")


def spoil_link(file, kind):
    """Replace the object by a link."""
    with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
        other["object"] = file["object"][()]
    del file["object"]
    file["object"] = h5py.ExternalLink("other.h5", "object") if kind == "external" else h5py.SoftLink("/probe")


def spoil_external_storage(file):
    del file["probe_position_x_m"]
    raw = Path(file.filename).with_name("raw.bin")
    raw.write_bytes(b"\0" * 56)
    file.create_dataset("probe_position_x_m", (7,), float, external=[(str(raw), 0, 56)])


def spoil_virtual(file):
    del file["coverage"]
    layout = h5py.VirtualLayout((31, 44), "f4")
    layout[:] = h5py.VirtualSource(str(Path(file.filename).with_name("other.h5")), "coverage", (31, 44))
    file.create_virtual_dataset("coverage", layout)


def spoil_bomb(file):
    attrs = dict(file["object"].attrs)
    del file["object"]
    file.create_dataset("object", (2**20, 2**20), "c8", chunks=(64, 64)).attrs.update(attrs)


def replace_dataset(name, values):
    def spoil(file):
        attrs = dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(attrs)

    return spoil


def set_attribute(name, attribute, value):
    def spoil(file):
        file[name].attrs[attribute] = value

    return spoil


def spoil_group(file):
    del file["probe"]
    file.create_group("probe")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: spoil_link(f, "external"), "'object' is a link to elsewhere"),
        (lambda f: spoil_link(f, "soft"), "'object' is a link to elsewhere"),
        (spoil_external_storage, "data of 'probe_position_x_m' lie outside the file"),
        (spoil_virtual, "data of 'coverage' lie outside the file"),
        (spoil_bomb, "unpacks to 8796093022208 bytes"),
        (spoil_group, "'probe' is not a dataset"),
        (lambda f: f.pop("object"), "dataset 'object' is missing; the file has"),
        (lambda f: f.pop("probe_position_y_m"), "dataset 'probe_position_y_m' is missing"),
        (
            replace_dataset("object", np.ones((3, 4))),
            r"'object' has the shape \(3, 4\) and the dtype float64",
        ),
        (replace_dataset("object", np.ones((0, 4), complex)), "product's object has the shape"),
        (replace_dataset("probe", np.ones(5, complex)), r"'probe' has the shape \(5,\)"),
        (replace_dataset("probe_position_x_m", np.ones(3)), "7 positions in y and 3 in x"),
        (replace_dataset("probe_position_x_m", np.full(7, np.nan)), "positions that are not finite"),
        (replace_dataset("probe_position_x_m", ["a"] * 7), "'probe_position_x_m' has the shape"),
        (replace_dataset("probe_position_indexes", np.arange(3)), "product's indexes has the shape"),
        (replace_dataset("coverage", np.ones((3, 3))), "product's coverage has the shape"),
        (set_attribute("object", "pixel_width_m", 0.0), "Pixel sizes must be positive"),
        (set_attribute("object", "center_x_m", np.nan), "'center_x_m' of 'object' is nan"),
        (set_attribute("object", "center_x_m", "here"), "'here', not a number"),
        (set_attribute("/", "photon_energy_eV", [1.0, 2.0]), "not a number"),
        (lambda f: f["object"].attrs.pop("pixel_height_m"), "'pixel_height_m' of 'object' is None"),
        (replace_dataset("loss_epochs", np.full(3, np.nan)), "cannot be read as a Ptychodus product"),
    ],
)
def test_spoiled_files_are_refused(written, spoil, message):
    """[PROD-007] A stranger's file is refused with its path and what is wrong; nothing outside it is read."""
    with h5py.File(written, "a") as file:
        spoil(file)
    with pytest.raises(DataError, match=message) as caught:
        read_product(written)
    assert str(written) in str(caught.value)
    assert caught.value.remedy


def test_size_limit_is_a_parameter(written):
    """[PROD-007] What the file really holds is read; what it unpacks to beyond the limit is not."""
    assert read_product(written, max_bytes=1).name == "scan 12"  # stored as it is: no surprise
    with h5py.File(written, "a") as file:
        del file["coverage"]
        file.create_dataset("coverage", data=np.zeros((31, 44)), compression="gzip")
    assert read_product(written).coverage.shape == (31, 44)
    with pytest.raises(DataError, match="max_bytes"):
        read_product(written, max_bytes=5000)


@pytest.mark.parametrize("keep", [0, 100, 0.5, -1])
def test_damaged_files_are_refused(written, keep):
    """[PROD-007] Empty, cut short, or no HDF5 at all."""
    content = written.read_bytes()
    cut = content[: int(keep * len(content))] if isinstance(keep, float) else content[:keep]
    written.write_bytes(cut)
    with pytest.raises(DataError, match="damaged, truncated, of another kind"):
        read_product(written)
    written.write_bytes(b"PK" + content[2:])
    with pytest.raises(DataError, match="cannot be read"):
        read_product(written)
    with pytest.raises(DataError, match="is not there"):
        read_product(written.with_name("missing.h5"))


def test_missing_filter_is_refused(written):
    """[PROD-007] Data packed with a filter that is not installed are named as such."""
    with h5py.File(written, "a") as file:
        del file["coverage"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((31, 44))
        plist.set_filter(32768 - 7, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((31, 44))
        made = h5py.h5d.create(file.id, b"coverage", h5py.h5t.IEEE_F32LE, space, plist)
        # a chunk that claims to have passed the filter
        made.write_direct_chunk((0, 0), np.zeros((31, 44), "f4").tobytes(), filter_mask=0)
    with pytest.raises(DataError, match="a filter that is not installed"):
        read_product(written)


def test_writing_is_atomic(written, monkeypatch):
    """[PROD-008] A write that fails leaves the old file and no scraps."""
    before = written.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ResourceError, match="No space left"):
        write_product(written, make_product(name="new"))
    assert written.read_bytes() == before
    assert [p.name for p in written.parent.iterdir()] == ["product.h5"]
    with pytest.raises(UsageError, match="does not exist"):
        write_product(written.parent / "no" / "folder.h5", make_product())


def test_awkward_text(tmp_path):
    """[PROD-008] Names with zero characters, lone surrogates or of any length do not break the file."""
    write_product(tmp_path / "p.h5", make_product(name="a\0b\ud800µ", comments="x" * 10**6, energy_eV=None))
    back = read_product(tmp_path / "p.h5")
    assert back.name == "ab?µ"
    assert 1000 < len(back.comments) < 2**16
    assert back.energy_eV is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((7, 3))}, "positions has the shape"),
        ({"indexes": np.zeros(6, int)}, "indexes has the shape"),
        ({"probe": np.ones((16, 16), complex)}, "probe has the shape"),
        ({"object": np.ones((2, 31, 44), complex)}, "object has the shape"),
        ({"coverage": np.ones((44, 31))}, "coverage has the shape"),
        ({"positions": np.full((7, 2), np.inf)}, "not finite"),
        ({"pixel_size_m": (1e-9, 0.0)}, "pixel_size_m is"),
        ({"energy_eV": -1.0}, "energy_eV is -1"),
        ({"photon_count": np.nan}, "photon_count is nan"),
    ],
)
def test_products_are_checked(change, message):
    """[PROD-004] A product that does not fit together is never made."""
    with pytest.raises(DataError, match=message):
        make_product(**change)


def test_empty_scan(tmp_path):
    """[PROD-001] No positions is a product too."""
    write_product(tmp_path / "p.h5", make_product(positions=np.zeros((0, 2)), indexes=None))
    assert read_product(tmp_path / "p.h5").positions.shape == (0, 2)
