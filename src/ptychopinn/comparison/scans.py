"""The scans of a comparison: files, what they hold, and how much of the test scan is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.comparison.files import digest_of_file
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.npz import read_scan, write_scan
from ptychopinn.typing import IntArray, StrPath


@dataclass(frozen=True)
class Reading:
    """How to read scans that do not say enough of themselves; as in `ptychopinn.data.npz.read_scan`."""

    measurement: Measurement | None = None
    nphotons: float | None = None

    def read(self, path: StrPath) -> ScanDataset:
        """Read a scan."""
        return read_scan(path, measurement=self.measurement, nphotons=self.nphotons)


@dataclass(frozen=True)
class ScanSource:
    """A file of a scan, and a file with its trusted object, by content.

    Attributes
    ----------
    path, reference:
        The files; without a reference the scan's own object is taken unless it is a placeholder.
    digest:
        Of the bytes of both.
    facts:
        What the scan is, for the report.
    """

    path: Path
    reference: Path | None
    digest: str
    facts: dict[str, Any]

    @classmethod
    def of(cls, path: StrPath, reference: StrPath | None, reading: Reading, name: str = "") -> ScanSource:
        """Look at a scan; errors as in `ptychopinn.data.npz.read_scan`."""
        data = reading.read(path)
        given = None if reference is None else Path(reference).resolve()
        digest = digest_of_file(Path(path)) + ("" if given is None else digest_of_file(given))
        guess = data.object_guess
        own = guess is not None and not bool((guess == guess.flat[0]).all())
        scale = data.metadata.nphotons
        facts = {
            "file": name or Path(path).name,
            "patterns": len(data),
            "N": data.N,
            "probe modes": data.probe.shape[0],
            "photons a pattern": "unknown" if scale is None else f"{scale:.3g}",
            "span of the positions, px": " x ".join(f"{v:.0f}" for v in np.ptp(data.positions, axis=0)),
            "reference": given.name if given is not None else "objectGuess of the scan" if own else "none",
        }
        return cls(Path(path).resolve(), given, digest, facts)


def central(data: ScanDataset, count: int) -> IntArray:
    """The patterns nearest to the middle of a scan: they overlap as all of them do.

    Parameters
    ----------
    data:
        The scan.
    count:
        How many; all if there are no more.

    Returns
    -------
    Sorted (k,) int64 indices.
    """
    positions = data.positions
    middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
    distance = np.abs(positions - middle).max(axis=1)  # a square, as scans are
    return np.sort(np.argsort(distance, kind="stable")[:count]).astype(np.int64)


def write_central(path: StrPath, count: int, target: Path, reading: Reading) -> bool:
    """Write the middle of a scan as a scan of its own; False, and nothing written, if that is all of it."""
    data = reading.read(path)
    if count >= len(data):
        return False
    write_scan(target, data.select(central(data, count)))
    return True
