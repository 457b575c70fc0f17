"""Convert scan files to the canonical format."""

from __future__ import annotations

from pathlib import Path

from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.errors import UsageError
from ptychopinn.typing import StrPath


def convert_scan(
    source: StrPath,
    target: StrPath,
    reading: ReadOptions | None = None,
    *,
    compress: bool = False,
    overwrite: bool = False,
) -> ScanDataset:
    """Read a scan file and write it in the canonical format.

    Parameters
    ----------
    source:
        As in `ptychopinn.data.io.read_scan`.
    target:
        The file to write; may be ``source`` itself with ``overwrite``.
    compress:
        As in `ptychopinn.data.io.write_scan`.

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
    data = read_scan(source, **dict(reading or ReadOptions()))
    write_scan(target, data, compress=compress)
    return data
