"""Write product files."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptychopinn.data.lazy_rows import release_pages
from ptychopinn.hdf5_files import atomic_hdf5_file
from ptychopinn.probe_variation import to_opr
from ptychopinn.product._model import OWN_DATASETS, Product
from ptychopinn.typing import AnyArray, StrPath

# Placeholders for values that a scan does not have.
PLACEHOLDER_PIXEL_SIZE_M = 1e-8
PLACEHOLDER_ENERGY_EV = 10_000.0
PLACEHOLDER_DISTANCE_M = 1.0

PLACEHOLDERS_ATTRIBUTE = "ptychopinn_placeholders"
PLACEHOLDERS_LINE = "Placeholders, not measured: "
_LARGE_BYTES, _CHUNK_PX = 1 << 26, 512  # pictures from this size on are written in chunks of so many pixels a side
_MAX_TEXT_BYTES = 2**15  # an HDF5 attribute holds 64 KiB


def write_product(path: StrPath, product: Product) -> None:
    """Write a product for Ptychodus atomically.

    Metres are counted from pixel (0, 0) of the positions' frame, so that crops of one scan agree. Unknown values become
    placeholders (10 nm pixels, 10 keV, 1 m), which the comments list; an unknown photon count or exposure is 0, as in
    Ptychodus.

    Raises
    ------
    UsageError
        If the folder does not exist.
    ResourceError
        If the file cannot be written.
    """
    with atomic_hdf5_file(path) as file:
        _fill(file, product)


def _fill(file: Any, product: Product) -> None:
    """Write the datasets of a product into an open HDF5 file."""
    placeholders: dict[str, str] = {}

    def known(name: str, value: float | None, placeholder: float, unit: str) -> float:
        if value is None:
            placeholders[name] = f"{name.replace('_', ' ')} {placeholder:g} {unit}"
        return placeholder if value is None else float(value)

    sizes = product.pixel_size_m or (None, None)
    pixel = np.array([known("pixel_size", size, PLACEHOLDER_PIXEL_SIZE_M, "m") for size in sizes])
    energy = known("photon_energy", product.energy_eV, PLACEHOLDER_ENERGY_EV, "eV")
    distance = known("detector_distance", product.detector_distance_m, PLACEHOLDER_DISTANCE_M, "m")
    comments = [_text(product.comments)] if product.comments else []
    if placeholders:
        comments.append(PLACEHOLDERS_LINE + ", ".join(placeholders.values()) + ".")
        file.attrs[PLACEHOLDERS_ATTRIBUTE] = ",".join(placeholders)
    file.attrs["name"] = _text(product.name)
    file.attrs["comments"] = "\n".join(comments)
    file.attrs["detector_object_distance_m"] = distance
    file.attrs["photon_energy_eV"] = energy
    file.attrs["probe_photon_count"] = product.photon_count or 0.0
    file.attrs["exposure_time_s"] = product.exposure_time_s or 0.0
    file.attrs["mass_attenuation_m2_per_kg"] = 0.0
    file.attrs["tomography_angle_deg"] = 0.0

    positions_m = product.positions * pixel
    file["probe_position_indexes"] = product.indexes
    file["probe_position_x_m"] = positions_m[:, 1]
    file["probe_position_y_m"] = positions_m[:, 0]
    file["probe"], weights = to_opr(product.probe, product.variation)
    if weights is not None:
        file["opr_weights"] = weights
    _put_picture(file, "object", product.object[None])  # (layer, y, x)
    centre_m = (np.array(product.origin) + (np.array(product.object.shape) - 1) / 2) * pixel
    for dataset in (file["probe"], file["object"]):
        dataset.attrs["pixel_height_m"], dataset.attrs["pixel_width_m"] = pixel
    file["object"].attrs["center_y_m"], file["object"].attrs["center_x_m"] = centre_m
    file["object_layer_spacing_m"] = np.zeros(0)
    file["loss_epochs"] = np.array([epoch for epoch, _ in product.losses], np.int64)
    file["loss_values"] = np.array([loss for _, loss in product.losses], np.float64)
    for name in OWN_DATASETS:
        if (values := getattr(product, name)) is not None:
            _put_picture(file, name, values)


def _put_picture(file: Any, name: str, values: AnyArray) -> None:
    """Write an array; a large picture in chunks, row by row, as it may be mapped and larger than the memory."""
    if values.nbytes < _LARGE_BYTES or values.ndim < 2:
        file[name] = values
        return
    chunks = (*(1,) * (values.ndim - 2), *(min(length, _CHUNK_PX) for length in values.shape[-2:]))
    dataset = file.create_dataset(name, values.shape, values.dtype, chunks=chunks)
    for low in range(0, values.shape[-2], _CHUNK_PX):
        rows = (..., slice(low, low + _CHUNK_PX), slice(None))
        dataset[rows] = values[rows]
        release_pages(values)


def _text(value: str) -> str:
    """Make text fit an HDF5 attribute: no zero characters, valid UTF-8, at most 32 KiB."""
    held = value.replace("\0", "").encode("utf-8", errors="replace")[:_MAX_TEXT_BYTES]
    return held.decode("utf-8", errors="ignore")
