"""Reading and writing NPZ files to the contract (specs/01-data.md)."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from ptychopinn.atomic import atomic_write
from ptychopinn.config.build import build
from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.contract import interpret
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.hdf5 import is_hdf5, open_hdf5
from ptychopinn.data.scan_file import ScanFile, open_npz
from ptychopinn.data.scan_reader import SCHEMA_VERSION, Reader
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray, ComplexArray, StrPath

_LOG = logging.getLogger(__name__)
_BLOCK_PIXELS = 1 << 18
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's first day: the same scan gives the same bytes


def open_scan(path: StrPath) -> ScanFile:
    """List the arrays of a scan file: an NPZ, or an HDF5 file with the same names at its root."""
    return open_hdf5(path) if is_hdf5(path) else open_npz(path)


def read_scan(
    path: StrPath,
    *,
    measurement: Measurement | str | None = None,
    nphotons: float | None = None,
    fftshift: bool = False,
) -> ScanDataset:
    """Read a scan; every conversion is logged.

    An array stored uncompressed is memory-mapped, a compressed one unpacked once, a large one into a scratch file;
    values are checked block by block.

    Parameters
    ----------
    path:
        An NPZ file to the contract, or an HDF5 file with the same names.
    measurement:
        "counts" or "amplitude": the domain of the patterns; overrides the file, and settles what is ambiguous.
    nphotons:
        Mean photons a pattern, bad pixels left out; overrides the file. Scales amplitudes, and counts that are detector
        units, to photons.
    fftshift:
        Move DC from the corner to ``[N//2, N//2]``; the patterns are then in memory.

    Returns
    -------
    The scan; its metadata holds the domain and the dose in force.

    Raises
    ------
    DataError
        If the file is refused; names key, shape, dtype and remedy (`ptychopinn.data.checks.check_scan` lists all).
    ConfigError
        If ``measurement`` or ``nphotons`` is out of bounds.
    ResourceError
        If a compressed array does not fit into memory.
    """
    options = build(ReadOptions, {"measurement": measurement, "nphotons": nphotons, "fftshift": fftshift})
    findings = Findings()
    found = interpret(open_scan(path), options, findings)
    findings.raise_first(path)
    assert found is not None
    findings.log(_LOG, path)
    return found.data


def read_object(path: StrPath) -> ComplexArray:
    """Read the object of a reference: key ``object``, else ``objectGuess``.

    Returns
    -------
    (H, W) complex64.

    Raises
    ------
    DataError
        If there is none, if it is not one finite complex layer, or if it is constant (exported scans carry ones):
        that is no reference.
    """
    findings = Findings()
    reader = Reader(open_scan(path), findings)
    key = "object" if reader.has("object") else "objectGuess"
    if not reader.has(key):
        raise DataError(
            f"{path} has no object: it has {reader.file.listed}.",
            "Give an NPZ file with the object under 'object' or 'objectGuess'.",
        )
    obj = reader.planar(key)
    findings.raise_first(path)
    assert obj is not None
    if (obj == obj.flat[0]).all():
        raise DataError(
            f"{path}: {key} (shape {obj.shape}) is {obj.flat[0]:g} everywhere; that is no reference.",
            "Give the file of a reconstruction that is trusted.",
        )
    findings.log(_LOG, path)
    return obj


def write_scan(path: StrPath, data: ScanDataset, *, compress: bool = False) -> None:
    """Write a canonical file: amplitudes (square roots of counts) as float32 and ``_metadata`` with the dose.

    Patterns go through block by block. The file is written aside and renamed: a killed write leaves the old one.

    Parameters
    ----------
    path:
        The file; replaced if there.
    data:
        The scan. Bad pixels are written as 0.
    compress:
        Deflate the arrays; such a file is smaller and cannot be mapped.

    Raises
    ------
    DataError
        If the scan has no patterns.
    UsageError, ResourceError
        If the folder is not there or the disk is full; nothing is left behind.
    """
    if len(data) == 0:
        raise DataError("A scan without patterns was to be written.", "Give at least one pattern.")
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    total = 0.0

    def amplitudes(part: slice) -> AnyArray:
        nonlocal total
        counts = data.counts(part)
        total += float(counts.sum(dtype=np.float64))
        return np.sqrt(counts)

    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "x", method, allowZip64=True) as archive:
        _write_rows(archive, "diffraction", np.dtype(np.float32), data.patterns.shape, amplitudes)
        if (truth := data.patches_guess) is not None:
            _write_rows(archive, "Y", np.dtype(np.complex64), truth.shape, lambda part: truth[part])
        metadata = data.metadata.model_copy(
            update={
                "schema_version": SCHEMA_VERSION,
                "measurement": Measurement.AMPLITUDE,
                "nphotons": total / len(data) if total > 0 else None,
            }
        )
        arrays: dict[str, AnyArray | None] = {
            "xcoords": data.positions[:, 1],
            "ycoords": data.positions[:, 0],
            "probeGuess": data.probe,
            "objectGuess": data.object_guess,
            "scan_index": data.scan_index,
            "bad_pixels": data.bad_pixels,
            "_metadata": np.array(metadata.model_dump_json()),
        }
        for key, array in arrays.items():
            if array is not None:
                with _member(archive, key) as stream:
                    np.lib.format.write_array(stream, np.asarray(array), version=(1, 0), allow_pickle=False)


def _write_rows(
    archive: zipfile.ZipFile,
    key: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    read: Callable[[slice], AnyArray],
) -> None:
    """Write an array of (n, N, N) whose rows ``read`` gives, a block at a time."""
    n, size = shape[:2]
    step = max(1, _BLOCK_PIXELS // size**2)
    little = dtype.newbyteorder("<")
    with _member(archive, key) as stream:
        header = {"descr": little.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, n, step):
            stream.write(np.ascontiguousarray(read(slice(start, start + step)), little).data)


def _member(archive: zipfile.ZipFile, key: str) -> IO[bytes]:
    entry = zipfile.ZipInfo(f"{key}.npy", _EPOCH)
    entry.compress_type = archive.compression
    entry.external_attr = 0o644 << 16
    return archive.open(entry, "w", force_zip64=True)
