"""Legacy files into canonical ones."""

from __future__ import annotations

from pathlib import Path

from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import UsageError
from ptychopinn.typing import StrPath


def convert_scan(
    source: StrPath,
    target: StrPath,
    *,
    measurement: Measurement | str | None = None,
    nphotons: float | None = None,
    fftshift: bool = False,
    compress: bool = False,
    overwrite: bool = False,
) -> ScanDataset:
    """Read any file that the contract allows and write it canonically.

    Parameters
    ----------
    source, measurement, nphotons, fftshift:
        As in `ptychopinn.data.io.read_scan`.
    target:
        The file to write; may be ``source`` itself with ``overwrite``.
    compress:
        As in `ptychopinn.data.io.write_scan`.
    overwrite:
        Replace ``target`` if it is there.

    Returns
    -------
    The scan as it was read.

    Raises
    ------
    UsageError
        If ``target`` is there and is not to be replaced, or its folder is not there.
    DataError
        If ``source`` is refused; ``target`` is then untouched.
    ResourceError
        If it could not be written.
    """
    if Path(target).exists() and not overwrite:
        raise UsageError(f"{target} exists already.", "Give another name, or allow that it is replaced (--overwrite).")
    data = read_scan(source, measurement=measurement, nphotons=nphotons, fftshift=fftshift)
    write_scan(target, data, compress=compress)
    return data
