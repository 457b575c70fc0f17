"""ptypy's prepared data (.ptyd): ``meta`` with the geometry and ``chunks`` with patterns, positions and weights.

Layout: ptypy, doc/rst/ptyd.rst. Energy is in keV, lengths are metres, positions are (y, x).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychopinn.data.bad_values import BadValues, Unmeasured, join_bad_values
from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.hdf5 import is_hdf5
from ptychopinn.data.hdf5_tree import Hdf5Tree
from ptychopinn.data.raw_scan import Geometry, RawScan
from ptychopinn.data.readers import hdf5_values as values
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.data.row_blocks import stack_rows
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray, BoolArray

_CENTRE_PX = 1.0  # tolerance


def sniff(path: Path) -> bool:
    """Whether it has ``meta`` and ``chunks``."""
    if not is_hdf5(path):
        return False
    with Hdf5Tree(path) as tree:
        return all(isinstance(tree.find(name), h5py.Group) for name in ("meta", "chunks")) and bool(_chunks(tree))


def read(path: Path) -> RawScan:
    """All chunks of a file, in order."""
    with Hdf5Tree(path) as tree:
        blocks: list[AnyArray] = []
        positions: list[AnyArray] = []
        bad = values.bad_pixels(_weights(values.array(tree, "meta/weight2d")), good=1)
        bad_values: list[tuple[int, BadValues | None]] = []
        for chunk in _chunks(tree):
            found = [values.array(tree, name, group=chunk) for name in ("data", "positions", "weights")]
            data, places, weights = found
            if data is None or places is None:
                raise values.missing(tree, f"data and positions in {str(chunk.name)[:100]}", ("data", "positions"))
            if data.ndim != 3 or places.shape != (len(data), 2):
                raise DataError(
                    f"{str(chunk.name)[:100]} has data of shape {data.shape} and positions of shape {places.shape}.",
                    "Save every chunk with one position (y, x) a frame.",
                )
            blocks.append(data)
            positions.append(places)
            some = None
            if weights is not None and weights.shape == data.shape:
                found_bad = Unmeasured.of_masks(weights, lambda block: ~(block > 0))
                here, some = found_bad.pixels, found_bad.values
                bad = here if bad is None else bad | here
            elif weights is not None and weights.size and weights.shape[-2:] == data.shape[-2:]:
                whole = values.bad_pixels(_weights(weights), good=1)
                bad = whole if bad is None or whole is None else bad | whole
            bad_values.append((len(data), some))
        raw = RawScan(
            patterns=stack_rows(blocks),
            positions=np.concatenate(positions).astype(np.float64),
            unit="m",
            measurement=Measurement.COUNTS,
            bad_pixels=_fitting(bad, blocks[0].shape[1:]),
            bad_values=join_bad_values(bad_values, (int(blocks[0].shape[1]), int(blocks[0].shape[2]))),
            geometry=_geometry(tree),
            metadata=ScanMetadata(source="ptypy"),
            name=path.stem,
        )
        propagation = values.text(tree, "meta/propagation") or values.text(tree, "info/propagation")
        centre = values.array(tree, "meta/center")
    if propagation == "nearfield":
        raise DataError(
            "The file says that this is a near-field scan; near field is not reconstructed.",
            "Use ptypy's near-field model.",
        )
    expected = np.array(raw.size) // 2
    if centre is not None and centre.shape == (2,) and (np.abs(centre - expected) > _CENTRE_PX).any():
        return raw.with_changes(
            warnings=(f"The file puts the centre of the patterns at {centre.tolist()}, not at {expected.tolist()}.",)
        )
    return raw


def _chunks(tree: Hdf5Tree) -> list[Any]:
    group = tree.find("chunks")
    if group is None:
        return []
    names = sorted((name for name in group if name.isdecimal()), key=int)
    return [chunk for name in names if isinstance(chunk := tree.member(group, name), h5py.Group)]


def _weights(weights: AnyArray | None) -> AnyArray | None:
    """1 where a pixel has weight."""
    return None if weights is None else (weights > 0).astype(np.uint8)


def _fitting(bad: BoolArray | None, shape: tuple[int, ...]) -> BoolArray | None:
    return bad if bad is not None and bad.shape == shape else None


def _geometry(tree: Hdf5Tree) -> Geometry:
    energy = values.number(tree, "meta/energy", "info/energy")
    found = values.array(tree, "meta/psize", "info/psize")
    pixel = np.ravel(found) if found is not None and found.dtype.kind in "iuf" and found.size in (1, 2) else None
    return Geometry(
        energy_eV=None if energy is None else 1e3 * energy,
        distance_m=values.number(tree, "meta/distance", "info/distance"),
        detector_pixel_m=None if pixel is None else (float(pixel[0]), float(pixel[-1])),
    )


READER = ReaderSpec("ptypy", "data prepared by ptypy", (".ptyd",), sniff, read)
