"""Scans of any length in no time: one simulated field, laid side by side. Written and read block by block."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import h5py
import numpy as np

from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import AnyArray, FloatArray

_BLOCK = 256


def field_of(size: int, patterns: int) -> ScanDataset:
    """The field that is repeated: a jittered grid of at most 45 x 45 positions, 1e5 photons a pattern (uint16)."""
    side = max(min(math.isqrt(patterns), 45 if size <= 128 else 24), 2)
    scan = simulate_scan(SimulationConfig(N=size, rows=side, cols=side, nphotons=1e5, seed=1))
    return ScanDataset(
        np.minimum(np.asarray(scan.patterns), 65535).astype(np.uint16),
        scan.measurement,
        scan.positions,
        scan.probe,
        object_guess=scan.object_guess,
        metadata=scan.metadata,
    )


def tiled_positions(field: ScanDataset, patterns: int) -> FloatArray:
    """(patterns, 2) positions: the field's, repeated over a square of fields that meet without a gap."""
    across = math.ceil(math.sqrt(patterns / len(field)))
    side = math.isqrt(len(field))
    step = np.ptp(field.positions, axis=0) / max(side - 1, 1) * side
    number = np.arange(patterns)
    row, column = np.divmod(number // len(field), across)
    return field.positions[number % len(field)] + np.stack([row, column], axis=1) * step


def blocks(field: ScanDataset, patterns: int) -> list[AnyArray]:
    """Numbers of the field's patterns, in blocks that make up the scan."""
    return [np.arange(low, min(low + _BLOCK, patterns)) % len(field) for low in range(0, patterns, _BLOCK)]


def write_npz(path: Path, field: ScanDataset, patterns: int, *, compress: bool = False) -> None:
    """A scan file with counts under ``diff3d``."""
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    positions = tiled_positions(field, patterns)
    small = {"xcoords": positions[:, 1], "ycoords": positions[:, 0], "probeGuess": field.probe}
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        with archive.open("diff3d.npy", "w", force_zip64=True) as stream:
            shape = (patterns, field.N, field.N)
            header = {"descr": "<u2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for block in blocks(field, patterns):
                stream.write(np.asarray(field.patterns[block]).data)
        for key, array in small.items():
            with archive.open(f"{key}.npy", "w") as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array))


def write_hdf5(path: Path, field: ScanDataset, patterns: int, *, compress: bool = False) -> None:
    """The same as HDF5: in one piece, or in compressed chunks."""
    positions = tiled_positions(field, patterns)
    packed = {"chunks": (16, field.N, field.N), "compression": "gzip", "compression_opts": 1} if compress else {}
    with h5py.File(path, "w") as file:
        counts = file.create_dataset("diff3d", (patterns, field.N, field.N), "u2", **packed)
        for number, block in enumerate(blocks(field, patterns)):
            counts[number * _BLOCK : number * _BLOCK + len(block)] = field.patterns[block]
        file["xcoords"], file["ycoords"] = positions[:, 1], positions[:, 0]
        file["probeGuess"] = field.probe
