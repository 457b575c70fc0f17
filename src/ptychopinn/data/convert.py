"""Convert scan files to the canonical format."""

from __future__ import annotations

from pathlib import Path

from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import UsageError
from ptychopinn.typing import StrPath


def convert_scan(  # noqa: PLR0913
    source: StrPath,
    target: StrPath,
    *,
    measurement: Measurement | str | None = None,
    nphotons: float | None = None,
    fftshift: bool = False,
    compress: bool = False,
    overwrite: bool = False,
) -> ScanDataset:
    """Read a scan file and write it in the canonical format.

    Parameters
    ----------
    source, measurement, nphotons, fftshift:
        As in `ptychopinn.data.io.read_scan`.
    target:
        The file to write; may be ``source`` itself with ``overwrite``.
    compress:
        As in `ptychopinn.data.io.write_scan`.
    overwrite:
        Replace an existing ``target``.

    Returns
    -------
    The scan.

    Raises
    ------
    UsageError
        If ``target`` exists and ``overwrite`` is false, or its folder does not exist.
    DataError
        If ``source`` is refused; ``target`` is then unchanged.
    ResourceError
        If it could not be written.
    """
    if Path(target).exists() and not overwrite:
        raise UsageError(f"{target} exists already.", "Give another name, or replace it with --overwrite.")
    data = read_scan(source, measurement=measurement, nphotons=nphotons, fftshift=fftshift)
    write_scan(target, data, compress=compress)
    return data
