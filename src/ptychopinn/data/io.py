"""Read and write scan files (specs/01-data.md)."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from os import PathLike
from typing import IO, Any

import numpy as np

from ptychopinn.atomic import atomic_write
from ptychopinn.config.build import build
from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.contract import interpret
from ptychopinn.data.dataset import Measurement, ScanDataset, check_writable
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.open_scan import open_arrays, open_scan
from ptychopinn.data.raw_scan import arrays_by_key
from ptychopinn.data.scan_reader import SCHEMA_VERSION, Reader
from ptychopinn.errors import DataError, UsageError
from ptychopinn.typing import AnyArray, ComplexArray, StrPath

_LOG = logging.getLogger(__name__)
_BLOCK_PIXELS = 1 << 18
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date of zip, so that the same scan gives the same bytes


def read_scan(  # noqa: PLR0913
    path: StrPath,
    *,
    measurement: Measurement | str | None = None,
    nphotons: float | None = None,
    saturation_counts: float | None = None,
    fftshift: bool = False,
    probe: str | None = None,
    reader: str | None = None,
) -> ScanDataset:
    """Read a scan file; every conversion is logged.

    Uncompressed arrays are memory-mapped. Compressed arrays are unpacked once, large ones to a temporary file. Values
    are checked block by block.

    Parameters
    ----------
    path:
        An NPZ file, an HDF5 file with the same names, or a file of any format with a reader
        (`ptychopinn.data.readers`).
    measurement:
        "counts" or "amplitude": the domain of the patterns; overrides the file.
    nphotons:
        Mean photons per pattern without bad pixels; overrides the file. It scales amplitudes, and counts in detector
        units, to photons.
    saturation_counts:
        Counts that the file has where a pixel is saturated; overrides the file.
    fftshift:
        Move DC from the corner to ``[N//2, N//2]``, which reads the patterns into memory.
    probe:
        A file with a probe, or how to make one (`ptychopinn.data.probe_recipes`); it replaces that of the scan.
    reader:
        The name of the reader to use, whatever else knows the file.

    Returns
    -------
    The scan; its metadata holds the domain and the dose in force.

    Raises
    ------
    DataError
        If the file is refused; `ptychopinn.data.checks.check_scan` lists all problems.
    UsageError
        If ``path`` is no path.
    ConfigError
        If ``measurement`` or ``nphotons`` is out of bounds, or there is no such reader.
    ResourceError
        If a compressed array does not fit into memory.
    """
    if not isinstance(path, str | PathLike):
        raise UsageError(
            f"A scan file is needed; this is of the type {type(path).__name__}.",
            "Give a path; scans that are in memory go to ptychopinn.train, Model.infer and ptychopinn.reconstruct.",
        )
    options = build(
        ReadOptions,
        {
            "measurement": measurement,
            "nphotons": nphotons,
            "saturation_counts": saturation_counts,
            "fftshift": fftshift,
            "probe": probe,
            "reader": reader,
        },
    )
    findings = Findings()
    found = interpret(open_scan(path, options), options, findings)
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
        If there is none, if it is not one finite complex layer, or if it is constant (a placeholder).
    """
    findings = Findings()
    reader = Reader(open_arrays(path), findings)
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
            "Give the file of a trusted reconstruction.",
        )
    findings.log(_LOG, path)
    return obj


def write_scan(path: StrPath, data: ScanDataset, *, compress: bool = False) -> None:
    """Write a canonical NPZ file: amplitudes (square roots of counts) as float32, and ``_metadata`` with the dose.

    Patterns are written block by block. The write is atomic: a killed one leaves the old file.

    Parameters
    ----------
    path:
        The file; an existing one is replaced.
    data:
        The scan. Bad pixels are written as 0, bad values of single patterns as what the pixel has on average.
    compress:
        Compress the arrays; the file is smaller but cannot be memory-mapped.

    Raises
    ------
    DataError
        If the scan has no patterns.
    UsageError, ResourceError
        If the folder does not exist or the disk is full; nothing is left behind.
    """
    check_writable(data)
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
        for key, array in arrays_by_key(data, metadata).items():
            with _member(archive, key) as stream:
                np.lib.format.write_array(stream, np.asarray(array), version=(1, 0), allow_pickle=False)


def _write_rows(
    archive: zipfile.ZipFile,
    key: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    read: Callable[[slice], AnyArray],
) -> None:
    """Write an (n, N, N) array block by block; ``read`` gives its rows."""
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
