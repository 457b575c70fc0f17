"""Write scans as CXI 1.6, which Ptychodus, cdtools and PyNX open; reading such a file back is exact."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from ptychopinn.data.dataset import Measurement, ScanDataset, check_writable
from ptychopinn.data.raw_scan import EV_METRES, JOULE_PER_EV
from ptychopinn.hdf5_files import atomic_hdf5_file
from ptychopinn.probe_variation import MODES_KEY, WEIGHTS_KEY
from ptychopinn.typing import StrPath

CXI_VERSION = 160  # 1.6
EXTRAS = "entry_1/ptychopinn"  # what CXI has no name for, and numbers as they are here
_BLOCK_PIXELS = 1 << 22
_INVALID = 1  # the bit of a bad pixel


def write_cxi_scan(path: StrPath, data: ScanDataset, *, compress: bool = False) -> None:
    """Write counts, mask, positions, probe and geometry of a scan as CXI, atomically.

    Whole counts stay integers, others become float32. Positions are in metres if the object pixel is known, and in a
    group ``ptychopinn`` in pixels; axes are those of CXI, so that the sample's translation is the probe's position.
    With an object pixel there is an object too, 1 where the scan has none: Ptychodus reads positions and probe of no
    file without one.

    Raises
    ------
    DataError
        If the scan has no patterns.
    UsageError, ResourceError
        If the folder does not exist or the disk is full; nothing is left behind.
    """
    check_writable(data)
    with atomic_hdf5_file(path) as file:
        _fill(file, data, compress)


def _fill(file: Any, data: ScanDataset, compress: bool) -> None:
    file["cxi_version"] = CXI_VERSION
    entry = file.create_group("entry_1")
    entry["title"] = data.name
    detector = entry.create_group("instrument_1/detector_1")
    _put_patterns(detector, data, compress)
    _put_mask(detector, data)
    meta, pixel = data.metadata, data.metadata.pixel_size_m
    source = entry.create_group("instrument_1/source_1")
    if meta.probe_energy_eV is not None:
        source["energy"] = meta.probe_energy_eV * JOULE_PER_EV
    if meta.detector_distance_m is not None:
        detector["distance"] = meta.detector_distance_m
    if meta.probe_energy_eV is not None and meta.detector_distance_m is not None and pixel is not None:
        side = EV_METRES / meta.probe_energy_eV * meta.detector_distance_m / (data.N * pixel)
        detector["x_pixel_size"] = detector["y_pixel_size"] = side
    data_group = entry.create_group("data_1")
    data_group["data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
    if pixel is not None:
        metres = np.zeros((len(data), 3))
        metres[:, 1::-1] = data.positions * pixel
        entry["sample_1/geometry_1/translation"] = metres
        data_group["translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
    entry["image_1/data"] = data.probe
    source["illumination"] = h5py.SoftLink("/entry_1/image_1/data")
    extras = file.create_group(EXTRAS)
    extras["positions_px"], extras["scan_index"] = data.positions, data.scan_index
    extras["metadata"] = meta.model_copy(update={"measurement": Measurement.COUNTS}).model_dump_json()
    if pixel is not None:
        _put_object(entry, data, pixel)
    if (variation := data.probe_variation) is not None:
        extras[MODES_KEY], extras[WEIGHTS_KEY] = variation.modes, variation.weights
    if data.object_guess is not None:
        extras["object_guess"] = data.object_guess if pixel is None else entry["image_2/data"]  # the same data


def _put_object(entry: Any, data: ScanDataset, pixel: float) -> None:
    """The object, and its place among the positions, as Ptychodus lays them out."""
    low, high = np.floor(data.positions.min(axis=0)), np.ceil(data.positions.max(axis=0))
    found, middle = data.object_guess, (low + high) / 2
    if found is None:
        height, width = (high - low).astype(int) + data.N + 1
        found = np.ones((height, width), np.complex64)
    else:
        middle = (np.array(found.shape) - 1) / 2
    entry["image_2/data"] = found
    extension = entry.create_group("ptychodus")
    extension["probe_photon_count"] = float(np.sum(np.abs(data.probe) ** 2))
    for kind in ("probe", "object"):
        extension[f"{kind}_pixel_height_m"] = extension[f"{kind}_pixel_width_m"] = pixel
    extension["object_center_y_m"], extension["object_center_x_m"] = middle * pixel


def _put_patterns(detector: Any, data: ScanDataset, compress: bool) -> None:
    """Write counts block by block."""
    plain = data.measurement is Measurement.COUNTS and data.counts_per_unit == 1.0 and data.patterns.dtype.kind in "iu"
    dtype = data.patterns.dtype if plain else np.dtype(np.float32)
    options = {"compression": "gzip", "shuffle": True} if compress else {}
    chunks = (1, data.N, data.N) if compress else None
    found = detector.create_dataset("data", (len(data), data.N, data.N), dtype, chunks=chunks, **options)
    found.attrs["axes"] = "translation:y:x"
    step = max(1, _BLOCK_PIXELS // data.N**2)
    for start in range(0, len(data), step):
        part = slice(start, start + step)
        found[part] = data.raw(part) if plain else data.counts(part)


def _put_mask(detector: Any, data: ScanDataset) -> None:
    """One mask, or one a pattern where single patterns have bad values."""
    shared = np.where(data.bad_pixels, _INVALID, 0).astype(np.uint32)
    if data.bad_values is None:
        detector["mask"] = shared
        return
    shape = (len(data), data.N, data.N)
    found = detector.create_dataset(
        "mask", shape, np.uint32, chunks=(1, data.N, data.N), compression="gzip", shuffle=True
    )
    for number in range(len(data)):
        found[number] = np.where(data.bad_values.masks(slice(number, number + 1))[0], np.uint32(_INVALID), shared)
