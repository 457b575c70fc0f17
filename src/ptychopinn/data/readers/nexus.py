"""NeXus files: the definitions NXcxi_ptycho and NXptycho, and files of detectors (Eiger master files) with positions.

Names: NeXus definitions, contributed NXptycho and NXcxi_ptycho; NXmx for Eiger. Groups are found by their NX_class, or
by their names where files lack it; units by the attribute ``units``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.hdf5 import is_hdf5
from ptychopinn.data.hdf5_tree import Hdf5Tree
from ptychopinn.data.raw_scan import EV_METRES, JOULE_PER_EV, Geometry, RawScan
from ptychopinn.data.readers import cxi
from ptychopinn.data.readers import hdf5_values as values
from ptychopinn.data.readers.near_field import refuse_near_field
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.data.row_blocks import stack_rows
from ptychopinn.typing import AnyArray, FloatArray

_NUMBERED = re.compile(r"data_\d{6}")
_ENERGIES = ("incident_beam_energy", "incident_energy", "photon_energy", "energy")
_WAVELENGTHS = ("incident_wavelength", "wavelength", "photon_wavelength")
_AXES = (("y", "x"), ("sample_y", "sample_x"), ("trans_y", "trans_x"), ("translation_y", "translation_x"))
_JOULES = 1e-10  # an energy without a unit below this is in joules


def sniff(path: Path) -> bool:
    """Whether it has an NXentry with patterns, and is no plain CXI file."""
    if not is_hdf5(path) or cxi.sniff(path):
        return False
    with Hdf5Tree(path) as tree:
        entry = _entry(tree)
        return entry is not None and next(_pattern_sets(tree, entry), None) is not None


def read(path: Path) -> RawScan:
    """The first NXentry of a file; ``translation`` is that of the sample, along CXI's axes (`cxi.read`)."""
    with Hdf5Tree(path) as tree:
        entry = _entry(tree)
        blocks = None if entry is None else next(_pattern_sets(tree, entry), None)
        if entry is None or blocks is None:
            raise values.missing(tree, "patterns", ("entry/instrument/detector/data", "entry/data/data"))
        patterns = stack_rows([values.values_of(tree, dataset) for dataset in blocks])
        patterns = patterns.reshape(-1, *patterns.shape[-2:])
        detector = next(_groups(entry, "NXdetector", "detector"), None)
        masks = None if detector is None else values.array(tree, "pixel_mask", "mask", group=detector)
        found = next((_probe(tree, group) for group in _groups(entry, "NXsource", "source")), None)
        positions = _positions(tree, entry, len(patterns))
        geometry = _geometry(tree, entry, detector)
    raw = RawScan(
        patterns=patterns,
        positions=positions,
        unit="m",
        measurement=Measurement.COUNTS,
        geometry=geometry,
        metadata=ScanMetadata(source="NeXus"),
        name=path.stem,
    )
    raw = values.find_probe(found).of(values.masked(raw, masks))
    refuse_near_field(raw)
    return raw


def _class_of(group: Any) -> str:
    return values.attribute_text(group, "NX_class")


def _entry(tree: Hdf5Tree) -> Any | None:
    """The first NXentry; a group called entry that has an instrument or data counts."""
    root = tree.root["/"]
    for name in root:
        item = tree.member(root, name)
        if isinstance(item, h5py.Group) and (
            _class_of(item) in ("NXentry", "NXsubentry")
            or (name.startswith("entry") and any(key.startswith(("instrument", "data")) for key in item))
        ):
            return item
    return None


def _groups(entry: Any, kind: str, name: str) -> Iterator[Any]:
    """Groups of a class below an entry, or of a name where they have no class; at most three levels down."""
    level = [entry]
    for _ in range(3):
        below = []
        for group in level:
            for key in group:
                if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                    continue
                item = group[key]
                if isinstance(item, h5py.Group):
                    below.append(item)
                    if _class_of(item) == kind or (not _class_of(item) and key.startswith(name)):
                        yield item
        level = below


def _pattern_sets(tree: Hdf5Tree, entry: Any) -> Iterator[list[Any]]:
    """Datasets that are patterns, or parts of them in order: of a detector, else of an NXdata."""
    for group in (*_groups(entry, "NXdetector", "detector"), *_groups(entry, "NXdata", "data")):
        for name in (values.attribute_text(group, "signal") or "data", "data"):
            item = tree.member(group, name)
            if isinstance(item, h5py.Dataset) and item.ndim in (3, 4) and item.dtype.kind in "iuf":
                yield [item]
        parts = [tree.member(group, name) for name in sorted(group) if _NUMBERED.fullmatch(name)]
        if parts and all(isinstance(part, h5py.Dataset) and part.ndim == 3 for part in parts):
            yield parts


def _probe(tree: Hdf5Tree, source: Any) -> AnyArray | None:
    found = values.array(tree, "probe", "illumination", group=source)
    return found if found is not None and found.dtype.kind == "c" else None


def _positions(tree: Hdf5Tree, entry: Any, n: int) -> FloatArray | None:
    """(n, 2) metres (y, x); None if there are none."""
    places = [
        *_groups(entry, "NXtransformations", "geometry"),
        *_groups(entry, "NXgeometry", "transformations"),
        *_groups(entry, "NXsample", "sample"),
        *_groups(entry, "NXdetector", "detector"),
        *_groups(entry, "NXdata", "data"),
        *_groups(entry, "NXpositioner", "positioner"),
    ]
    for group in places:
        item = tree.member(group, "translation")
        if isinstance(item, h5py.Dataset):
            found = values.values_of(tree, item)
            if found.ndim == 2 and found.shape[0] == n and found.shape[1] >= 2 and found.dtype.kind in "iuf":
                return found[:, 1::-1].astype(np.float64) * values.unit_factor(item)
    for group in places:
        for names in _AXES:
            items = [tree.member(group, name) for name in names]
            if all(isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf" for item in items):
                y, x = (_one_per_pattern(values.values_of(tree, item), n) for item in items)
                if y is not None and x is not None:
                    return values.stacked(y * values.unit_factor(items[0]), x * values.unit_factor(items[1]))
    return None


def _one_per_pattern(found: AnyArray, n: int) -> FloatArray | None:
    """One number a pattern, also of a grid of them; None if they are not as many."""
    return np.ravel(found).astype(np.float64) if found.size == n else None


def _geometry(tree: Hdf5Tree, entry: Any, detector: Any | None) -> Geometry:
    groups = [
        group
        for kind, name in (("NXbeam", "beam"), ("NXmonochromator", "mono"), ("NXsource", "source"))
        for group in _groups(entry, kind, name)
    ]
    energy = next((e for group in groups if (e := _energy(tree, group)) is not None), None)
    if detector is None:
        return Geometry(energy_eV=energy)
    distance = values.length(tree, "distance", "detector_distance", group=detector)
    x, y = (values.length(tree, f"{axis}_pixel_size", group=detector) for axis in "xy")
    x, y = x or y, y or x
    return Geometry(
        energy_eV=energy,
        distance_m=None if distance is None else abs(distance),
        detector_pixel_m=None if x is None or y is None else (y, x),
    )


def _energy(tree: Hdf5Tree, group: Any) -> float | None:
    """Electronvolts out of an energy or a wavelength; what has no unit is in joules if it is tiny."""
    found = values.energy(tree, *_ENERGIES, group=group)
    if found is not None and found > 0:
        return found / JOULE_PER_EV if found < _JOULES else found
    wavelength = values.length(tree, *_WAVELENGTHS, group=group, default="angstrom")
    if wavelength is not None and wavelength > 0:
        return EV_METRES / wavelength
    return None


READER = ReaderSpec("nexus", "a NeXus file", (".nxs", ".nx5", ".nx", ".h5", ".hdf5"), sniff, read)
