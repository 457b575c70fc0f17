"""Files of Ptychodus 1.7: its training data, ``diffraction.h5`` with ``product.h5``, and the pairs of PtychoFM.

Layout: ptychodus.api.io (TrainingDataFileKeys, DiffractionFileKeys, ProductFileKeys); README of PtychoFM.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.hdf5 import is_hdf5
from ptychopinn.data.hdf5_tree import Hdf5Tree
from ptychopinn.data.raw_scan import Geometry, RawScan
from ptychopinn.data.readers import hdf5_values as values
from ptychopinn.data.readers.cxi import several_slices
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.data.row_blocks import pick_rows
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray

_DIFFRACTION, _PRODUCT = "diffraction", "product"
_MAX_SPAN_M = 1.0  # PtychoFM's positions may be pixels under the names of metres; no scan spans more than this


def _has(path: Path, *names: str) -> bool:
    if not is_hdf5(path):
        return False
    with Hdf5Tree(path) as tree:
        return all(isinstance(tree.find(name), h5py.Dataset) for name in names)


def sniff_training(path: Path) -> bool:
    """Whether it has patterns with positions in pixels."""
    return _has(path, "patterns", "probe", "probe_position_x_px", "probe_position_y_px")


def read_training(path: Path) -> RawScan:
    """Training data: positions are in pixels of the object array."""
    with Hdf5Tree(path) as tree:
        sides = [values.number(tree, f"object_pixel_{side}_m") for side in ("height", "width")]
        raw = RawScan(
            patterns=values.require(tree, "patterns", "patterns"),
            positions=values.stacked(
                *(values.require(tree, "positions", f"probe_position_{axis}_px") for axis in "yx")
            ),
            measurement=Measurement.COUNTS,
            object_guess=_one_slice(values.array(tree, "object"), None),
            bad_pixels=values.bad_pixels(values.array(tree, "bad_pixels")),
            geometry=Geometry(
                energy_eV=values.number(tree, "photon_energy_eV"),
                distance_m=values.number(tree, "detector_object_distance_m"),
                object_pixel_m=None if sides[0] is None or sides[1] is None else (sides[0], sides[1]),
            ),
            metadata=ScanMetadata(source="Ptychodus"),
            name=path.stem,
        )
        return values.find_probe(values.array(tree, "probe")).of(raw)


def sniff_pair(path: Path) -> bool:
    """Whether it is one of a pair of assembled patterns and product."""
    if _has(path, "patterns", "indexes"):
        return True
    return _has(path, "probe", "object", "probe_position_indexes") and not sniff_training_pair(path)


def read_pair(path: Path) -> RawScan:
    """Patterns of the one file with positions, probe and object of the other; the indexes say which belong together."""
    diffraction, product = _pair(path)
    with Hdf5Tree(diffraction) as tree:
        patterns = values.require(tree, "patterns", "patterns")
        indexes = values.require(tree, "indexes", "indexes")
        sides = [values.number_attribute(tree, "patterns", f"detector_pixel_{side}_m") for side in ("height", "width")]
        bad = values.bad_pixels(values.array(tree, "bad_pixels"))
    with Hdf5Tree(product) as tree:
        places = values.require(tree, "positions", "probe_position_indexes")
        metres = values.stacked(*(values.require(tree, "positions", f"probe_position_{axis}_m") for axis in "yx"))
        probe = values.find_probe(values.require(tree, "probe", "probe"), values.array(tree, "opr_weights"))
        obj, positions, pixel = _object(tree, metres)
        _refuse_near_field(tree)
        energy = _attribute(tree, "photon_energy_eV") or _attribute(tree, "probe_energy_eV")
        geometry = Geometry(
            energy_eV=energy,
            distance_m=_attribute(tree, "detector_object_distance_m"),
            detector_pixel_m=None if sides[0] is None or sides[1] is None else (sides[0], sides[1]),
            object_pixel_m=pixel,
        )
        name = values.attribute_text(tree.root, "name") or path.stem
    rows, chosen = _match_positions(indexes, places, len(patterns), len(positions))
    raw = RawScan(
        patterns=pick_rows(patterns, rows),
        positions=positions[chosen],
        measurement=Measurement.COUNTS,
        object_guess=obj,
        bad_pixels=bad,
        geometry=geometry,
        metadata=ScanMetadata(source="Ptychodus"),
        name=name,
        notes=(f"Patterns of {diffraction.name} with positions, probe and object of {product.name}.",),
    )
    _refuse_other_weights(probe, len(positions))
    return probe.select(chosen).of(raw)


def _refuse_other_weights(probe: values.FoundProbe, count: int) -> None:
    """Refuse OPR weights that are not one row a position."""
    if probe.probe_variation is not None and len(probe.probe_variation.weights) != count:
        raise DataError(
            f"There are {len(probe.probe_variation.weights)} rows of OPR weights and {count} positions.",
            "Save the product again with Ptychodus.",
        )


def sniff_training_pair(path: Path) -> bool:
    """Whether it is one of a pair ``*_dp.hdf5`` and ``*_para.hdf5`` whose parameters have the names of a product."""
    if path.stem.rpartition("_")[2] not in ("dp", "para"):
        return False
    dp, para = _training_pair(path)
    return (path == para or _has(dp, "dp")) and _has(para, "object", "probe_position_y_m", "probe_position_x_m")


def read_training_pair(path: Path) -> RawScan:
    """Patterns of the one file with positions, probe and object of the other, as PtychoFM trains on them."""
    dp, para = _training_pair(path)
    if not is_hdf5(dp):
        raise DataError(f"{dp} is not there, or no HDF5 file; it has the patterns of {para.name}.", "Put it there.")
    with Hdf5Tree(para) as tree:
        found = values.stacked(*(values.require(tree, "positions", f"probe_position_{axis}_m") for axis in "yx"))
        probe = values.find_probe(values.array(tree, "probe"), values.array(tree, "opr_weights"))
        _refuse_near_field(tree)
        height = values.number_attribute(tree, "object", "pixel_height_m")
        width = values.number_attribute(tree, "object", "pixel_width_m") or height
        centre = [values.number_attribute(tree, "object", f"center_{axis}_m") or 0.0 for axis in "yx"]
        obj = _one_slice(values.array(tree, "object"), values.array(tree, "object_layer_spacing_m"))
        energy, distance = (_attribute(tree, name) for name in ("photon_energy_eV", "detector_object_distance_m"))
    if obj is None or height is None or width is None or not min(height, width) > 0:
        raise DataError(f"{para}: the object has pixels of {height} m.", "Give it the attribute pixel_height_m.")
    in_pixels = len(found) > 0 and float(np.ptp(found, axis=0).max()) > _MAX_SPAN_M
    pixels = found if in_pixels else (found - np.array(centre)) / np.array([height, width])
    with Hdf5Tree(dp) as tree:
        patterns = values.require(tree, "patterns", "dp")
    raw = RawScan(
        patterns=patterns,
        positions=pixels + (np.array(obj.shape) - 1) / 2,
        measurement=Measurement.COUNTS,
        object_guess=obj,
        geometry=Geometry(energy_eV=energy, distance_m=distance, object_pixel_m=(height, width)),
        metadata=ScanMetadata(source="Ptychodus"),
        name=path.stem.rpartition("_")[0],
        notes=(
            f"Patterns of {dp.name} with positions, probe and object of {para.name}.",
            f"The positions are {'object pixels' if in_pixels else 'metres'} from the middle of the object.",
        ),
    )
    return probe.of(raw)


def _training_pair(path: Path) -> tuple[Path, Path]:
    """The paths of ``*_dp`` and ``*_para``, of which one is given."""
    base = path.stem.rpartition("_")[0]
    dp, para = (path.with_name(f"{base}_{kind}{path.suffix}") for kind in ("dp", "para"))
    return dp, para


def _pair(path: Path) -> tuple[Path, Path]:
    """The paths of patterns and product, whichever of them is given."""
    if _has(path, "patterns", "indexes"):
        own, other, given = _DIFFRACTION, _PRODUCT, 0
    else:
        own, other, given = _PRODUCT, _DIFFRACTION, 1
    names = [path.name.replace(own, other)] if own in path.name else []
    for name in [*names, f"{other}{path.suffix}", f"{other}.h5"]:
        beside = path.with_name(name)
        if beside != path and is_hdf5(beside):
            return (path, beside) if given == 0 else (beside, path)
    raise DataError(
        f"{path} is a {own} file of Ptychodus, and no {other} file lies beside it.",
        f"Put {other}{path.suffix} into its folder: patterns are in one file, positions and probe in the other.",
    )


def _object(tree: Hdf5Tree, metres: FloatArray) -> tuple[ComplexArray, FloatArray, tuple[float, float]]:
    """The object, (n, 2) positions in its pixels, and their size."""
    spacing = values.array(tree, "object_layer_spacing_m")
    obj = _one_slice(values.require(tree, "object", "object"), spacing)
    pixel = [values.number_attribute(tree, "object", f"pixel_{side}_m") for side in ("height", "width")]
    centre = [values.number_attribute(tree, "object", f"center_{axis}_m") for axis in "yx"]
    if obj is None or not all(v is not None and v > 0 for v in pixel) or None in centre:
        raise DataError(
            f"{tree.path}: the object has pixels of {pixel} m and its centre at {centre} m.",
            "Give it a geometry in Ptychodus, and save it again.",
        )
    size = (float(pixel[0] or 0), float(pixel[1] or 0))
    positions = (metres - np.array(centre, float)) / np.array(size) + (np.array(obj.shape) - 1) / 2
    return obj, positions, size


def _one_slice(obj: AnyArray | None, spacing: AnyArray | None) -> ComplexArray | None:
    if obj is None:
        return None
    if obj.ndim == 3 and len(obj) > 1:
        raise several_slices(len(obj))
    if spacing is not None and spacing.size:
        raise several_slices(int(spacing.size) + 1)
    if obj.ndim not in (2, 3) or 0 in obj.shape:
        return None
    return obj[0] if obj.ndim == 3 else obj


def _refuse_near_field(tree: Hdf5Tree) -> None:
    far = tree.root.attrs.get("far_field", True)
    if not bool(np.all(far)):
        raise DataError(
            f"{tree.path} says that this is not a far-field scan; near field is not reconstructed.",
            "Use a reconstructor with a near-field model.",
        )


def _attribute(tree: Hdf5Tree, name: str) -> float | None:
    return values.number_attribute(tree, "/", name)


def _match_positions(indexes: AnyArray, places: AnyArray, n: int, m: int) -> tuple[AnyArray, AnyArray]:
    """Rows of patterns and of positions that have the same index, in the order of the patterns."""
    if indexes.shape != (n,) or places.shape != (m,) or indexes.dtype.kind not in "iu" or places.dtype.kind not in "iu":
        raise DataError(
            f"There are {n} patterns with indexes of shape {indexes.shape}, {m} positions with {places.shape}.",
            "Save them again with Ptychodus.",
        )
    _, rows, chosen = np.intersect1d(indexes, places, return_indices=True)
    if not len(rows):
        raise DataError("No pattern has the index of a position.", "Take the two files of one scan.")
    order = np.argsort(rows)
    return rows[order], chosen[order]


TRAINING_READER = ReaderSpec(
    "ptychodus-training", "training data of Ptychodus", (".h5", ".hdf5"), sniff_training, read_training
)
PAIR_READER = ReaderSpec(
    "ptychodus", "diffraction and product files of Ptychodus", (".h5", ".hdf5"), sniff_pair, read_pair
)
TRAINING_PAIR_READER = ReaderSpec(
    "ptychofm", "a pair of files of PtychoFM", (".hdf5", ".h5"), sniff_training_pair, read_training_pair
)
