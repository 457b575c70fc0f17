"""Products in the formats of other programs: CXI, as Ptychodus lays it out, and NeXus.

Both have the metres and names that other programs read, and a group ``ptychopinn`` with what those do not have, among
it the positions in pixels. A product that is read back is the one that was written, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychopinn.data.hdf5_tree import Hdf5Tree
from ptychopinn.data.raw_scan import JOULE_PER_EV
from ptychopinn.data.readers import hdf5_values as values
from ptychopinn.errors import DataError, UsageError
from ptychopinn.hdf5_files import atomic_hdf5_file
from ptychopinn.probe_variation import from_opr, to_opr
from ptychopinn.product._model import Product
from ptychopinn.typing import StrPath

CXI_VERSION = 160  # 1.6
_EXTRAS = "ptychopinn"
_NUMBERS = ("energy_eV", "detector_distance_m", "photon_count", "exposure_time_s")
_ARRAYS = ("coverage", "flux", "background", "motion_px")


class ProductFormat(StrEnum):
    """A format for results beside the product."""

    CXI = "cxi"
    NEXUS = "nexus"


SUFFIXES: Mapping[ProductFormat, str] = {ProductFormat.CXI: ".cxi", ProductFormat.NEXUS: ".nxs"}


def product_formats(names: Iterable[str]) -> tuple[ProductFormat, ...]:
    """The formats of these names, each once.

    Raises
    ------
    UsageError
        If there is no such format.
    """
    try:
        return tuple(dict.fromkeys(ProductFormat(name.strip().lower()) for name in names))
    except ValueError as error:
        known = ", ".join(ProductFormat)
        raise UsageError(f"There is no such format: {error}.", f"Products are written as {known}.") from error


def write_product_as(path: StrPath, product: Product, form: ProductFormat) -> None:
    """Write a product in another format, atomically.

    What the product does not know is left out. Positions in metres count from pixel (0, 0) of the positions' frame, and
    are left out without a pixel size.

    Raises
    ------
    UsageError
        If the folder does not exist.
    ResourceError
        If the file cannot be written.
    """
    fill = {ProductFormat.CXI: _fill_cxi, ProductFormat.NEXUS: _fill_nexus}[form]
    with atomic_hdf5_file(path) as file:
        fill(file, product)


def _probe_data(product: Product) -> Any:
    """(modes, N, N), or (OPR, modes, N, N) of a probe that varies."""
    array, weights = to_opr(product.probe, product.variation)
    return array[0] if weights is None else array


def _metres(product: Product) -> Any | None:
    """(n, 3) x, y, z of the positions; None without a pixel size."""
    if product.pixel_size_m is None:
        return None
    found = np.zeros((len(product.positions), 3))
    found[:, 1::-1] = product.positions * np.array(product.pixel_size_m)
    return found


def _centre_m(product: Product) -> Any | None:
    """(y, x) of the middle of the object in metres; None without a pixel size."""
    if product.pixel_size_m is None:
        return None
    middle = np.array(product.origin) + (np.array(product.object.shape) - 1) / 2
    return middle * np.array(product.pixel_size_m)


def _fill_cxi(file: Any, product: Product) -> None:
    """The names of CXI 1.6 and of Ptychodus's extension of it."""
    file["cxi_version"] = CXI_VERSION
    entry = file.create_group("entry_1")
    _put_texts(entry, {"title": product.name, "experiment_description": product.comments})
    source = entry.create_group("instrument_1/source_1")
    detector = entry.create_group("instrument_1/detector_1")
    if product.energy_eV is not None:
        source["energy"] = product.energy_eV * JOULE_PER_EV
    if product.detector_distance_m is not None:
        detector["distance"] = product.detector_distance_m
    if (metres := _metres(product)) is not None:
        entry["sample_1/geometry_1/translation"] = metres
        entry["data_1/translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
    probe, obj = entry.create_group("image_1"), entry.create_group("image_2")
    obj["data"] = product.object
    probe["data"] = _probe_data(product)
    for image in (probe, obj):
        image["data_space"], image["data_type"] = "real", "complex"
    source["illumination"] = h5py.SoftLink("/entry_1/image_1/data")
    process = entry.create_group("process_1")
    process["program"] = "ptychopinn"
    extension = entry.create_group("ptychodus")
    extension["probe_position_indexes"] = product.indexes
    known: dict[str, float | None] = {
        "probe_photon_count": product.photon_count,
        "exposure_time_s": product.exposure_time_s,
    }
    if product.pixel_size_m is not None and (centre := _centre_m(product)) is not None:
        for kind in ("probe", "object"):
            known[f"{kind}_pixel_height_m"], known[f"{kind}_pixel_width_m"] = product.pixel_size_m
        known["object_center_y_m"], known["object_center_x_m"] = centre
    for name, value in known.items():
        if value is not None:
            extension[name] = value
    if (weights := to_opr(product.probe, product.variation)[1]) is not None:
        extension["opr_weights"] = weights
    extension["loss_epochs"] = np.array([epoch for epoch, _ in product.losses], np.int64)
    extension["loss_values"] = np.array([loss for _, loss in product.losses], np.float64)
    _fill_extras(entry, product)


def _fill_nexus(file: Any, product: Product) -> None:
    """NXentry with NXinstrument, NXsample, an NXdata for object and probe each, and an NXprocess."""
    file.attrs["NX_class"], file.attrs["default"] = "NXroot", "entry"
    entry = _group(file, "entry", "NXentry")
    entry.attrs["default"] = "object"
    _put_texts(entry, {"definition": "NXcxi_ptycho", "title": product.name, "experiment_description": product.comments})
    instrument = _group(entry, "instrument", "NXinstrument")
    for group, kind, name, value, unit in (
        ("beam", "NXbeam", "incident_beam_energy", product.energy_eV, "eV"),
        ("detector", "NXdetector", "distance", product.detector_distance_m, "m"),
    ):
        place = _group(instrument, group, kind)
        if value is not None:
            _put(place, name, value, unit)
    sample = _group(entry, "sample", "NXsample")
    if (metres := _metres(product)) is not None:
        _put(sample, "translation", metres, "m")
    for name, array in (("object", product.object), ("probe", _probe_data(product))):
        data = _group(entry, name, "NXdata")
        data["data"] = array
        data.attrs["signal"] = "data"
    _axes(entry["object"], product)
    process = _group(entry, "process", "NXprocess")
    process["program"] = "ptychopinn"
    collection = _fill_extras(entry, product)
    collection.attrs["NX_class"] = "NXcollection"


def _axes(data: Any, product: Product) -> None:
    """The places of object pixels, in metres or in pixels."""
    size = product.pixel_size_m or (1.0, 1.0)
    data.attrs["axes"] = ["y", "x"]
    for axis, name in enumerate("yx"):
        places = (np.arange(product.object.shape[axis]) + product.origin[axis]) * size[axis]
        _put(data, name, places, "m" if product.pixel_size_m else "pixel")


def _group(parent: Any, name: str, kind: str) -> Any:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _put(group: Any, name: str, value: Any, unit: str) -> None:
    group[name] = value
    group[name].attrs["units"] = unit


def _put_texts(group: Any, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        if plain := text.replace("\0", "").encode("utf-8", errors="replace").decode("utf-8"):
            group[name] = plain


def _fill_extras(entry: Any, product: Product) -> Any:
    """What other programs do not have, and numbers as they are here."""
    group = entry.create_group(_EXTRAS)
    group["positions_px"], group["origin_px"] = product.positions, np.array(product.origin, np.int64)
    group["indexes"] = product.indexes
    group["losses"] = np.array(product.losses, np.float64).reshape(-1, 2)
    if product.pixel_size_m is not None:
        group["pixel_size_m"] = np.array(product.pixel_size_m)
    if (weights := to_opr(product.probe, product.variation)[1]) is not None:
        group["opr_weights"] = weights
    for name in (*_NUMBERS, *_ARRAYS):
        if (value := getattr(product, name)) is not None:
            group[name] = value
    return group


_ENTRIES: Mapping[str, tuple[str, str]] = {
    "entry_1": ("entry_1/image_2/data", "entry_1/image_1/data"),
    "entry": ("entry/object/data", "entry/probe/data"),
}


def entry_of(file: Any) -> str | None:
    """The entry of an open HDF5 file that this software wrote as CXI or NeXus; None if there is none."""
    for entry in _ENTRIES:
        if isinstance(file.get(entry, getlink=True), h5py.HardLink) and isinstance(file[entry], h5py.Group):
            link = file[entry].get(_EXTRAS, getlink=True)
            if isinstance(link, h5py.HardLink) and isinstance(file[entry][_EXTRAS], h5py.Group):
                return entry
    return None


def read_other_product(path: Path, entry: str) -> Product:
    """A product in CXI or NeXus that this software wrote, by its `entry_of`.

    Raises
    ------
    DataError
        If it is damaged, or its data lie elsewhere.
    """
    with Hdf5Tree(path) as tree:
        return _parse(tree, entry, *_ENTRIES[entry])


def _parse(tree: Hdf5Tree, entry: str, obj: str, probe: str) -> Product:
    extras = f"{entry}/{_EXTRAS}"

    def checked(name: str, found: Any, check: Callable[[Any], bool]) -> Any:
        if found is not None and not check(found):
            raise DataError(f"{name} has the shape {found.shape} and the dtype {found.dtype}.", "Write it again.")
        return found

    def array(name: str, check: Callable[[Any], bool]) -> Any:
        return checked(name, values.require(tree, name, f"{extras}/{name}"), check)

    def optional(name: str) -> Any | None:
        return checked(name, values.array(tree, f"{extras}/{name}"), lambda a: a.dtype.kind in "fiu")

    def image(name: str, path: str) -> Any:
        return checked(name, values.require(tree, name, path), lambda a: a.dtype.kind == "c")

    def number(name: str) -> float | None:
        return values.number(tree, f"{extras}/{name}")

    origin = array("origin_px", lambda a: a.shape == (2,) and a.dtype.kind in "iu")
    losses = array(
        "losses", lambda a: a.ndim == 2 and a.shape[1] == 2 and a.dtype.kind == "f" and np.isfinite(a[:, 0]).all()
    )
    pixel = optional("pixel_size_m")
    if pixel is not None and pixel.shape != (2,):
        raise DataError(f"pixel_size_m has the shape {pixel.shape}.", "Write it again.")
    modes, variation = from_opr(image("probe", probe), optional("opr_weights"))
    return Product(
        name=values.text(tree, f"{entry}/title") or "Unnamed",
        comments=values.text(tree, f"{entry}/experiment_description"),
        positions=array("positions_px", lambda a: a.ndim == 2 and a.dtype.kind == "f"),
        origin=(int(origin[0]), int(origin[1])),
        indexes=array("indexes", lambda a: a.ndim == 1 and a.dtype.kind in "iu"),
        probe=modes,
        variation=variation,
        object=image("object", obj),
        pixel_size_m=None if pixel is None else (float(pixel[0]), float(pixel[1])),
        losses=tuple((int(epoch), float(loss)) for epoch, loss in losses),
        energy_eV=number("energy_eV"),
        detector_distance_m=number("detector_distance_m"),
        photon_count=number("photon_count"),
        exposure_time_s=number("exposure_time_s"),
        coverage=optional("coverage"),
        flux=optional("flux"),
        background=optional("background"),
        motion_px=optional("motion_px"),
    )
