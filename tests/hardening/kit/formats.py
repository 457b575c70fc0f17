"""Mutated scans in the formats that have readers."""

from __future__ import annotations

import random
import tempfile
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import scan_formats
from hardening.kit import tensors
from hardening.kit.mutation import Mutation, mangle, pick

from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.checks import check_scan
from ptychopinn.data.cxi_writer import write_cxi_scan
from ptychopinn.data.dataset import Measurement, ScanDataset, ScanMetadata
from ptychopinn.data.diagnostics import Severity
from ptychopinn.data.io import read_scan
from ptychopinn.data.readers.find import plugin_readers
from ptychopinn.errors import DataError

SUFFIX = "_dp.hdf5"  # that of fold_slice; other readers look at what is inside


def own_cxi(path: Path, scan: scan_formats.Example) -> Path:
    """The CXI of this software."""
    metadata = ScanMetadata(pixel_size_m=scan.pixel_m, probe_energy_eV=8000.0, detector_distance_m=2.0)
    data = ScanDataset(
        scan.counts, Measurement.COUNTS, scan.positions, scan.probe, bad_pixels=scan.bad, metadata=metadata
    )
    write_cxi_scan(path, data)
    return path


WRITERS = {**{name: write for name, (_, write) in scan_formats.FORMATS.items()}, "own-cxi": own_cxi}


@lru_cache(maxsize=16)
def _files(name: str) -> dict[str, bytes]:
    """A format's file and its neighbours, or the files of its folder, by their paths."""
    with tempfile.TemporaryDirectory() as folder:
        WRITERS[name](Path(folder, f"file{SUFFIX}"), scan_formats.example())
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }


def harm(name: str, rng: random.Random, path: Path) -> str:
    """Bytes or structure of one of a format's files."""
    files = dict(_files(name))
    victim = pick(rng, [*([path.name] * 2 if path.name in files else []), *files])
    structured = b"\x89HDF" in files[victim][:1024] and not name.startswith("matlab") and rng.random() < 0.5
    how, files[victim] = (tensors.harm if structured else mangle)(rng, files[victim])
    for file, content in files.items():
        (path.parent / file).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / file).write_bytes(content)
    return f"{name} {victim}: {how}"


def _mutation(name: str) -> Mutation:
    mutation = partial(harm, name)
    mutation.__name__ = "harm"  # type: ignore[attr-defined]
    return mutation


MUTATIONS: tuple[Mutation, ...] = tuple(_mutation(name) for name in WRITERS)
plugin_readers()  # installed plugins are imported once, before files are opened
for _name in WRITERS:  # the limit of memory comes afterwards
    _files(_name)


def open_file(path: Path, target: Path) -> None:
    """Everything that reads scans; the reader must agree with the checker."""
    errors = [p for p in check_scan(path, ReadOptions(probe="mean")) if p.severity is Severity.ERROR]
    assert all(p.remedy for p in errors), f"an error without a remedy: {errors}"
    try:
        data = read_scan(path, probe="mean")
    except DataError:
        assert errors, "read_scan refuses what check_scan passes"
        raise
    assert not errors or all("bytes of this array" in p.message for p in errors), errors
    some = data.counts(slice(0, 4))
    assert np.isfinite(some).all()
    assert (some >= 0).all()
