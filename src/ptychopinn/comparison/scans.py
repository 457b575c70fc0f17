"""The scans of a comparison, and the part of the test scan that is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.digests import digest_of_file
from ptychopinn.errors import DataError
from ptychopinn.metrics import scan_box
from ptychopinn.typing import ComplexArray, IntArray, StrPath
from ptychopinn.workflows.reference import reference_of


@dataclass(frozen=True)
class ScanSource:
    """A scan file, and the file of its reference object, with hashes of their content."""

    # The files. Without a reference the scan's own object is used, unless it is a placeholder.
    path: Path
    reference: Path | None
    reading: ReadOptions  # how to read the scan
    # Hashes of their bytes; empty without a reference.
    digest: str
    reference_digest: str
    facts: dict[str, Any]  # properties of the scan, for the report

    @classmethod
    def of(cls, path: StrPath, reference: StrPath | None, reading: ReadOptions, name: str = "") -> ScanSource:
        """Read a scan and check its reference.

        Raises DataError if the scan cannot be read, as in `ptychopinn.data.io.read_scan`, or the reference does not fit
        it.
        """
        data = read_scan(path, **dict(reading))
        given = None if reference is None else Path(reference).resolve()
        trusted = reference_of(data, given)
        if given is not None and trusted is not None:
            _check_reference(trusted, given, data)
        scale = data.metadata.nphotons
        facts = {
            "file": name or Path(path).name,
            "patterns": len(data),
            "N": data.N,
            "probe modes": data.probe.shape[0],
            "photons a pattern": "unknown" if scale is None else f"{scale:.3g}",
            "span of the positions, px": " x ".join(f"{v:.0f}" for v in np.ptp(data.positions, axis=0)),
            "reference": given.name if given is not None else "none" if trusted is None else "objectGuess of the scan",
        }
        path = Path(path).resolve()
        return cls(path, given, reading, digest_of_file(path), "" if given is None else digest_of_file(given), facts)


def _check_reference(reference: ComplexArray, path: Path, data: ScanDataset) -> None:
    """Refuse a reference that does not cover the scan, or is constant or not finite."""
    box = scan_box(data.positions, reference.shape)
    low, high = data.positions.min(axis=0), data.positions.max(axis=0)
    if (low < -0.5).any() or box != scan_box(data.positions, (np.iinfo(np.int64).max,) * 2):
        height, width = reference.shape
        raise DataError(
            f"The reference {path} is {height} x {width} pixels; the positions of {data.name} span "
            f"{low[0]:.0f} to {high[0]:.0f} and {low[1]:.0f} to {high[1]:.0f}.",
            "Give an object in the frame of the scan's positions.",
        )
    inside = reference[box.slices]
    if inside.size and (not np.isfinite(inside).all() or bool((inside == inside.flat[0]).all())):
        raise DataError(
            f"The reference {path} is constant or not finite inside the box of scan positions.",
            "Give the file of a trusted reconstruction.",
        )


def central_indices(data: ScanDataset, count: int) -> IntArray:
    """Sorted (k,) int64 indices of the ``count`` patterns nearest to the middle, or of all; overlaps are preserved."""
    positions = data.positions
    middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
    distance = np.abs(positions - middle).max(axis=1)  # selects a square
    return np.sort(np.argsort(distance, kind="stable")[:count]).astype(np.int64)


def write_central(path: StrPath, count: int, target: Path, reading: ReadOptions) -> bool:
    """Write the middle of a scan to a file; return False, and write nothing, if that is the whole scan."""
    data = read_scan(path, **dict(reading))
    if count >= len(data):
        return False
    write_scan(target, data.select(central_indices(data, count)))
    return True
