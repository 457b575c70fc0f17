"""Writes one scan in every format that has a reader, as the programs of the field write them."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.simulate import simulate_scan

ENERGY_EV = 8000.0
DISTANCE_M = 2.0
DETECTOR_PIXEL_M = 75e-6
WAVELENGTH_M = 1.2398419843320026e-06 / ENERGY_EV
JOULE = 1.602176634e-19


@dataclass(frozen=True)
class Example:
    """A scan: counts (n, N, N) uint16, positions (n, 2) pixels, probe (modes, N, N), object, mask, pixel size."""

    counts: Any
    positions: Any
    probe: Any
    object: Any
    bad: Any
    pixel_m: float

    @property
    def metres(self) -> Any:
        """(n, 2) positions (y, x)."""
        return self.positions * self.pixel_m


@lru_cache(maxsize=4)
def example(size: int = 32, rows: int = 4) -> Example:
    """A simulated scan, rounded to counts."""
    data: ScanDataset = simulate_scan(SimulationConfig(N=size, rows=rows, cols=rows + 1, seed=5))
    bad = np.zeros((size, size), bool)
    bad[3, 4] = True
    counts = np.rint(data.counts(slice(None))).astype(np.uint16)
    pixel = WAVELENGTH_M * DISTANCE_M / (size * DETECTOR_PIXEL_M)
    return Example(counts, data.positions, data.probe, data.object_guess, bad, pixel)


def cxi(path: Path, scan: Example) -> Path:
    """CXI 1.6 with soft links and a probe, as cdtools and Ptychodus lay it out."""
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = scan.counts
        detector["distance"] = DISTANCE_M
        detector["x_pixel_size"] = detector["y_pixel_size"] = DETECTOR_PIXEL_M
        detector["mask"] = scan.bad.astype(np.uint32)
        file["entry_1/instrument_1/source_1/energy"] = ENERGY_EV * JOULE
        metres = scan.metres
        file["entry_1/sample_1/geometry_1/translation"] = np.c_[metres[:, 1], metres[:, 0], np.zeros(len(metres))]
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        file["entry_1/data_1/translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
        file["entry_1/image_1/data"] = scan.probe
    return path


def nexus(path: Path, scan: Example, definition: str = "NXcxi_ptycho") -> Path:
    """NXcxi_ptycho with units that are not metres."""
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry_1")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = definition
        for name, kind in (("instrument_1", "NXinstrument"), ("data_1", "NXdata"), ("sample_1", "NXsample")):
            entry.create_group(name).attrs["NX_class"] = kind
        beam = entry.create_group("instrument_1/beam_1")
        beam.attrs["NX_class"] = "NXbeam"
        beam["incident_beam_energy"] = ENERGY_EV / 1e3
        beam["incident_beam_energy"].attrs["units"] = "keV"
        detector = entry.create_group("instrument_1/detector_1")
        detector.attrs["NX_class"] = "NXdetector"
        detector["data"] = scan.counts
        for name, value, unit in (
            ("distance", DISTANCE_M * 1e3, "mm"),
            ("x_pixel_size", DETECTOR_PIXEL_M * 1e6, "um"),
            ("y_pixel_size", DETECTOR_PIXEL_M * 1e6, "um"),
        ):
            detector[name] = value
            detector[name].attrs["units"] = unit
        detector["pixel_mask"] = scan.bad.astype(np.uint32)
        source = entry.create_group("instrument_1/source_1")
        source.attrs["NX_class"] = "NXsource"
        source["probe"] = scan.probe
        metres = scan.metres
        entry["sample_1/geometry_1/translation"] = np.c_[metres[:, 1], metres[:, 0], np.zeros(len(metres))] * 1e6
        entry["sample_1/geometry_1/translation"].attrs["units"] = "um"
        entry["data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
    return path


def nxptycho(path: Path, scan: Example) -> Path:
    """NXptycho: separate positions x and y in an NXdata."""
    nexus(path, scan, "NXptycho")
    with h5py.File(path, "a") as file:
        del file["entry_1/sample_1/geometry_1"]
        for axis, values in zip("yx", scan.metres.T, strict=True):
            file[f"entry_1/data_1/{axis}"] = values * 1e3
            file[f"entry_1/data_1/{axis}"].attrs["units"] = "mm"
    return path


def eiger(path: Path, scan: Example) -> Path:
    """A master file with external links to its neighbours, and positions in the sample."""
    half = len(scan.counts) // 2
    for k, part in enumerate((scan.counts[:half], scan.counts[half:])):
        with h5py.File(path.with_name(f"{path.stem}_data_{k + 1:06d}.h5"), "w") as file:
            file.create_dataset("entry/data/data", data=part, chunks=(1, *part.shape[1:]), compression="gzip")
    nxptycho(path, scan)
    with h5py.File(path, "a") as file:
        del file["entry_1/instrument_1/detector_1/data"]
        del file["entry_1/data_1/data"]
        for k in (1, 2):
            link = h5py.ExternalLink(f"{path.stem}_data_{k:06d}.h5", "/entry/data/data")
            file[f"entry_1/data_1/data_{k:06d}"] = link
    return path


def ptyd(path: Path, scan: Example) -> Path:
    """ptypy's prepared data in two chunks."""
    with h5py.File(path, "w") as file:
        file["meta/energy"] = ENERGY_EV / 1e3
        file["meta/distance"] = DISTANCE_M
        file["meta/psize"] = np.full(2, DETECTOR_PIXEL_M)
        file["meta/center"] = np.full(2, scan.counts.shape[1] / 2)
        file["info/propagation"] = "farfield"
        half = len(scan.counts) // 2
        for k, part in enumerate((slice(0, half), slice(half, None))):
            chunk = file.create_group(f"chunks/{k}")
            chunk["data"] = scan.counts[part]
            chunk["positions"] = scan.metres[part]
            chunk["weights"] = np.broadcast_to(~scan.bad, scan.counts[part].shape).astype(np.float32)
    return path


def training(path: Path, scan: Example) -> Path:
    """Ptychodus 1.7: training data."""
    with h5py.File(path, "w") as file:
        file.create_dataset("patterns", data=scan.counts, compression="lzf")
        file["bad_pixels"] = scan.bad
        file["probe"] = scan.probe
        file["object"] = scan.object
        file["probe_position_x_px"], file["probe_position_y_px"] = scan.positions[:, 1], scan.positions[:, 0]
        file["object_pixel_width_m"] = file["object_pixel_height_m"] = scan.pixel_m
        file["detector_object_distance_m"] = DISTANCE_M
        file["photon_energy_eV"] = ENERGY_EV
    return path


def pair(path: Path, scan: Example) -> Path:
    """Ptychodus 1.7: diffraction.h5 (``path``) and product.h5, the positions in another order than the patterns."""
    indexes = np.arange(len(scan.counts)) + 7
    with h5py.File(path, "w") as file:
        file.create_dataset("patterns", data=scan.counts, compression="lzf")
        file["patterns"].attrs["detector_pixel_width_m"] = DETECTOR_PIXEL_M
        file["patterns"].attrs["detector_pixel_height_m"] = DETECTOR_PIXEL_M
        file["indexes"] = indexes
        file["bad_pixels"] = scan.bad
    product(path.with_name("product.h5"), scan, indexes)
    return path


def product(path: Path, scan: Example, indexes: Any) -> Path:
    """Ptychodus 1.7: a product, its positions in reverse."""
    order = np.arange(len(indexes))[::-1]
    with h5py.File(path, "w") as file:
        file.attrs["name"] = "scan"
        file.attrs["photon_energy_eV"] = ENERGY_EV
        file.attrs["detector_object_distance_m"] = DISTANCE_M
        file["probe_position_indexes"] = indexes[order]
        file["probe_position_y_m"], file["probe_position_x_m"] = scan.metres[order].T
        file["probe"] = scan.probe[None]
        file["object"] = scan.object[None]
        centre = (np.array(scan.object.shape) - 1) / 2 * scan.pixel_m
        for side, axis, value in (("height", "y", centre[0]), ("width", "x", centre[1])):
            file["object"].attrs[f"pixel_{side}_m"] = scan.pixel_m
            file["object"].attrs[f"center_{axis}_m"] = value
        file["object_layer_spacing_m"] = np.zeros(0)
    return path


def matlab5(path: Path, scan: Example) -> Path:
    """MATLAB version 5 with the names of fold_slice."""
    arrays = {
        "dp": np.moveaxis(scan.counts, 0, 2),
        "ppX": scan.metres[:, 1:],
        "ppY": scan.metres[:, :1],
        "probe": np.moveaxis(scan.probe, 0, 2),
        "bad_pixels": scan.bad,
        "lambda": WAVELENGTH_M,
        "dx": scan.pixel_m,
    }
    scipy.io.savemat(path, arrays, do_compression=True)
    return path


def matlab73(path: Path, scan: Example) -> Path:
    """MATLAB version 7.3: HDF5 behind a block of its own, axes reversed, complex numbers as records."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["dp"] = np.moveaxis(scan.counts, 0, 2).T
        file["ppX"], file["ppY"] = scan.metres[:, 1:].T, scan.metres[:, :1].T
        probe = np.moveaxis(scan.probe, 0, 2).T
        record = np.empty(probe.shape, [("real", "f8"), ("imag", "f8")])
        record["real"], record["imag"] = probe.real, probe.imag
        file["probe"] = record
        file["bad_pixels"] = scan.bad.T.astype(np.uint8)
        file["lambda"], file["dx"] = np.full((1, 1), WAVELENGTH_M), np.full((1, 1), scan.pixel_m)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    return path


def fold_slice(path: Path, scan: Example) -> Path:
    """fold_slice: ``scan_dp.hdf5`` (``path``) and ``scan_para.hdf5``."""
    with h5py.File(path, "w") as file:
        file["dp"] = scan.counts
        file["bad_pixels"] = scan.bad
    with h5py.File(path.with_name(path.name.replace("_dp", "_para")), "w") as file:
        file["ppX"], file["ppY"] = scan.metres[:, 1], scan.metres[:, 0]
        file["lambda"], file["dx"] = WAVELENGTH_M, scan.pixel_m
        file["probe"] = scan.probe
    return path


def ptychofm(path: Path, scan: Example) -> Path:
    """PtychoFM: ``scan_dp.hdf5`` (``path``) and ``scan_para.hdf5``, a product of Ptychodus in its folder."""
    para = product(path.with_name(path.name.replace("_dp", "_para")), scan, np.arange(len(scan.counts)))
    with h5py.File(para, "a") as file:
        for axis, values in zip("yx", scan.metres.T, strict=True):
            file[f"probe_position_{axis}_m"][:] = values
    with h5py.File(path, "w") as file:
        file["dp"] = scan.counts.astype(np.float32)
    return path


def ptychonn(path: Path, scan: Example) -> Path:
    """PtychoNN: an archive of patterns and patches with positions in metres."""
    labels = np.ones((len(scan.counts), 16, 16), np.complex64)
    counts = scan.counts.astype(np.float32)
    with path.open("wb") as stream:  # under any name
        np.savez_compressed(stream, reciprocal=counts, real=labels, position=scan.metres, pixelsize=scan.pixel_m)
    return path


_CALIBRATION = {"R_pixel_size": 2.0, "R_pixel_units": "A", "Q_pixel_size": 0.05, "Q_pixel_units": "A^-1"}


def py4dstem(path: Path, scan: Example) -> Path:
    """py4DSTEM 0.14: a raster of 4 rows of 5, steps of 2 A, with a calibration."""
    with h5py.File(path, "w") as file:
        root = file.create_group("datacube_root")
        root.attrs["emd_group_type"] = "root"
        cube = root.create_group("datacube")
        cube.attrs["emd_group_type"] = "array"
        cube["data"] = scan.counts.reshape(4, 5, *scan.counts.shape[1:])
        known = root.create_group("metadatabundle/calibration")
        for name, value in _CALIBRATION.items():
            known[name] = value
    return path


def zarr2(path: Path, scan: Example) -> Path:
    """Zarr 2 with the names of py4DSTEM, in blosc and uneven chunks: the raster of `py4dstem`."""
    import numcodecs
    import zarr

    root = zarr.open_group(path, mode="w", zarr_format=2, attributes={"calibration": _CALIBRATION})
    cube = root.create_array(
        "cube/data",
        shape=(4, 5, *scan.counts.shape[1:]),
        chunks=(3, 2, 32, 20),
        dtype="<u2",
        compressors=numcodecs.Blosc(),
    )
    cube[:] = scan.counts.reshape(4, 5, *scan.counts.shape[1:])
    return path


def zarr3(path: Path, scan: Example) -> Path:
    """Zarr 3 as HyperSpy lays it out: the same raster, calibrated by its axes."""
    import zarr

    root = zarr.open_group(path, mode="w", zarr_format=3)
    cube = root.create_array(
        "Experiments/scan/data", shape=(4, 5, *scan.counts.shape[1:]), chunks=(2, 5, 32, 32), dtype="u2"
    )
    cube[:] = scan.counts.reshape(4, 5, *scan.counts.shape[1:])
    for k, (scale, units) in enumerate([(2.0, "A"), (2.0, "A"), (0.05, "$A^{-1}$"), (0.05, "$A^{-1}$")]):
        root.create_group(f"Experiments/scan/axis-{k}", attributes={"scale": scale, "units": units, "navigate": k < 2})
    return path


def zarr_zip(path: Path, scan: Example) -> Path:
    """`zarr2` in a zip file."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path, "w") as archive:
        for file in sorted(zarr2(Path(folder), scan).rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


Writer = Callable[[Path, Example], Path]
FORMATS: dict[str, tuple[str, Writer]] = {
    "cxi": ("scan.cxi", cxi),
    "nexus": ("scan.nxs", nexus),
    "nxptycho": ("scan.nxs", nxptycho),
    "eiger": ("scan_master.h5", eiger),
    "ptypy": ("scan.ptyd", ptyd),
    "ptychodus-training": ("training.h5", training),
    "ptychodus": ("diffraction.h5", pair),
    "matlab5": ("scan.mat", matlab5),
    "matlab73": ("scan.mat", matlab73),
    "fold-slice": ("scan_dp.hdf5", fold_slice),
    "py4dstem": ("scan.h5", py4dstem),
    "zarr2": ("scan.zarr", zarr2),
    "zarr3": ("scan.zspy", zarr3),
    "zarr-zip": ("scan.zarr.zip", zarr_zip),
    "ptychofm": ("scan_dp.hdf5", ptychofm),
    "ptychonn": ("scan.npz", ptychonn),
}
