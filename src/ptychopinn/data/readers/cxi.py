"""CXI files (Coherent X-ray Imaging Data Bank, cxidb.org/cxi.html, 1.6), also those of Ptychodus and cdtools."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from ptychopinn.data.cxi_writer import EXTRAS
from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.hdf5 import is_hdf5
from ptychopinn.data.hdf5_tree import Hdf5Tree
from ptychopinn.data.raw_scan import EV_METRES, JOULE_PER_EV, Geometry, RawScan
from ptychopinn.data.readers import hdf5_values as values
from ptychopinn.data.readers.near_field import refuse_near_field
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.errors import DataError
from ptychopinn.probe_variation import MODES_KEY, WEIGHTS_KEY, ProbeVariation
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray

_DETECTOR = "entry_1/instrument_1/detector_1"
_SOURCE = "entry_1/instrument_1/source_1"
_EXTRAS = "entry_1/ptychodus"
_DATA = ("entry_1/data_1/data", f"{_DETECTOR}/data")
_TRANSLATION = (
    "entry_1/data_1/translation",
    "entry_1/sample_1/geometry_1/translation",
    f"{_DETECTOR}/translation",
)
_PROBE = ("entry_1/image_1/data", f"{_SOURCE}/illumination", f"{_SOURCE}/probe")
_ABOVE_BACKGROUND = 0x1000  # the bit of the mask that marks a good pixel with signal


def sniff(path: Path) -> bool:
    """Whether it has an ``entry_1`` with data, and no word of NeXus's NXcxi_ptycho."""
    if not is_hdf5(path):
        return False
    with Hdf5Tree(path) as tree:
        if "NX" in values.text(tree, "entry_1/definition"):
            return False
        return any(isinstance(tree.find(name), h5py.Dataset) for name in _DATA)


def read(path: Path) -> RawScan:
    """The first entry of a CXI file.

    ``translation`` moves the sample, so the probe moves by its negative along the detector's axes, which
    ``basis_vectors`` gives; without them CXI's slow and fast axes point along -y and -x, and the two signs cancel.
    """
    partner = _partner(path)
    with Hdf5Tree(path) as tree, Hdf5Tree(partner or path) as places:
        patterns = values.require(tree, "patterns", *_DATA)
        if patterns.ndim != 3:
            raise DataError(f"The patterns have the shape {patterns.shape}.", "Save them as (n, H, W).")
        found = values.array(places, *_TRANSLATION)
        raw = RawScan(
            patterns=patterns,
            positions=None if found is None else _positions(tree, found),
            unit="m",
            measurement=Measurement.COUNTS,
            geometry=_geometry(tree, places),
            metadata=ScanMetadata(source="CXI"),
            name=path.stem,
            notes=() if tree.find(f"{EXTRAS}/positions_px") is not None else (_axes_note(tree),),
        )
        raw = values.find_probe(values.array(places, *_PROBE), values.array(places, f"{_EXTRAS}/opr_weights")).of(raw)
        raw = values.masked(raw, values.array(tree, f"{_DETECTOR}/mask"), _is_bad)
        raw = _with_own(tree, raw) if tree.find(EXTRAS) is not None else _with_object(places, raw)
    if partner is not None:
        raw = raw.with_changes(f"Positions, probe and object are those of {partner.name}.")
    refuse_near_field(raw)
    return raw


def _partner(path: Path) -> Path | None:
    """The product.cxi that Ptychodus writes beside a diffraction.cxi without positions; None if there is none."""
    beside = path.with_name(path.name.replace("diffraction", "product"))
    if beside == path or not is_hdf5(beside):
        return None
    with Hdf5Tree(path) as tree:
        return None if any(tree.find(name) is not None for name in _TRANSLATION) else beside


def _positions(tree: Hdf5Tree, found: FloatArray) -> FloatArray:
    """(n, 2) metres (y, x) of (n, 3) translations of the sample."""
    if found.ndim != 2 or found.shape[1] < 2 or found.dtype.kind not in "iuf":
        raise DataError(f"translation has the shape {found.shape}.", "Save it as (n, 3), metres.")
    moved = np.zeros((len(found), 3))
    moved[:, : min(3, found.shape[1])] = found[:, :3]
    axes = detector_axes(values.array(tree, f"{_DETECTOR}/basis_vectors"))
    return np.asarray(-moved @ axes.T)


def _axes_note(tree: Hdf5Tree) -> str:
    if tree.find(f"{_DETECTOR}/basis_vectors") is not None:
        return "Positions are the negative translations of the sample along the detector's basis_vectors."
    return (
        "Positions are the translations of the sample: the file has no basis_vectors, and CXI has -y and -x. "
        "If it means the negative, convert --negate-y --negate-x."
    )


def detector_axes(basis: FloatArray | None) -> FloatArray:
    """(2, 3) unit vectors of rows and columns of the detector out of ``basis_vectors`` (3, 2) or (2, 3).

    Raises
    ------
    DataError
        If they are not two vectors.
    """
    if basis is None:
        return np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
    basis = np.asarray(basis, np.float64)
    if basis.shape == (3, 2):
        basis = basis.T
    lengths = np.linalg.norm(basis, axis=-1)
    if basis.shape != (2, 3) or not np.isfinite(basis).all() or not (lengths > 0).all():
        raise DataError(f"basis_vectors has the shape {basis.shape}.", "Save two vectors of the detector, (3, 2).")
    return np.asarray(basis / lengths[:, None])


def _geometry(tree: Hdf5Tree, places: Hdf5Tree) -> Geometry:
    energy_j = values.number(tree, f"{_SOURCE}/energy")
    wavelength = values.number(tree, f"{_SOURCE}/wavelength")
    energy = None if not energy_j else energy_j / JOULE_PER_EV
    if energy is None and wavelength and wavelength > 0:
        energy = EV_METRES / wavelength
    x, y = (values.number(tree, f"{_DETECTOR}/{axis}_pixel_size") for axis in "xy")
    x, y = x or y, y or x
    if not x and (basis := values.array(tree, f"{_DETECTOR}/basis_vectors")) is not None and basis.ndim == 2:
        y, x = np.linalg.norm(basis.T if basis.shape == (3, 2) else basis, axis=-1).tolist()[:2]
    stated = tuple(values.number(places, f"{_EXTRAS}/probe_pixel_{side}_m") for side in ("height", "width"))
    return Geometry(
        energy_eV=energy,
        distance_m=_absolute(values.number(tree, f"{_DETECTOR}/distance")),
        detector_pixel_m=None if x is None or y is None else (y, x),
        object_pixel_m=None if stated[0] is None or stated[1] is None else (stated[0], stated[1]),
    )


def _absolute(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _is_bad(mask: AnyArray) -> BoolArray:
    """CXI's mask is a field of bits; no bit, or only that of a signal above background, is a good pixel."""
    return np.asarray((mask != 0) & ((mask != _ABOVE_BACKGROUND) | (mask.dtype.kind not in "iub")))


def _with_object(tree: Hdf5Tree, raw: RawScan) -> RawScan:
    """With the object of Ptychodus's layout, in its frame: its centre is at a known place of the positions' metres.

    Raises
    ------
    DataError
        For an object of several slices.
    """
    obj: ComplexArray | None = values.array(tree, "entry_1/image_2/data")
    if obj is None or obj.dtype.kind != "c":
        return raw
    if obj.ndim == 3 and len(obj) > 1:
        raise several_slices(len(obj))
    obj = obj[0] if obj.ndim == 3 else obj
    centre = [values.number(tree, f"{_EXTRAS}/object_center_{axis}_m") for axis in "yx"]
    pixel = [values.number(tree, f"{_EXTRAS}/object_pixel_{side}_m") for side in ("height", "width")]
    if raw.positions is None or obj.ndim != 2 or None in centre or not all(pixel):
        return raw.with_changes("The object of the file has no place in the frame of the positions; it is not used.")
    local = (raw.positions - np.array(centre, float)) / np.array(pixel, float) + (np.array(obj.shape) - 1) / 2
    geometry = Geometry(
        raw.geometry.energy_eV,
        raw.geometry.distance_m,
        raw.geometry.detector_pixel_m,
        (float(pixel[0] or 0), float(pixel[1] or 0)),
    )
    return raw.with_changes(object_guess=obj, positions=local, unit="px", geometry=geometry)


def _with_own(tree: Hdf5Tree, raw: RawScan) -> RawScan:
    """With what `ptychopinn.data.cxi_writer` adds: positions in pixels, scans, metadata, object.

    Raises
    ------
    DataError
        If it does not fit the patterns.
    """
    positions, index = (values.array(tree, f"{EXTRAS}/{name}") for name in ("positions_px", "scan_index"))
    if positions is None:
        return raw
    try:
        metadata = ScanMetadata.model_validate_json(values.text(tree, f"{EXTRAS}/metadata") or "{}")
    except ValueError as error:
        raise DataError(f"The metadata do not fit the schema: {error!s:.300}.", "Write the file again.") from error
    pixel = metadata.pixel_size_m
    obj = values.array(tree, f"{EXTRAS}/object_guess")
    modes, weights = (values.array(tree, f"{EXTRAS}/{name}") for name in (MODES_KEY, WEIGHTS_KEY))
    if modes is not None and weights is not None:
        raw = replace(raw, probe_variation=ProbeVariation(modes, weights))
    return raw.with_changes(
        positions=positions.astype(np.float64) if positions.dtype.kind in "iuf" else positions,
        unit="px",
        scan_index=index,
        object_guess=obj if obj is not None and obj.ndim == 2 and obj.dtype.kind == "c" else None,
        metadata=metadata,
        geometry=Geometry(
            energy_eV=metadata.probe_energy_eV,
            distance_m=metadata.detector_distance_m,
            detector_pixel_m=raw.geometry.detector_pixel_m,
            object_pixel_m=None if pixel is None else (pixel, pixel),
        ),
    )


def several_slices(count: int) -> DataError:
    """The refusal of an object of several slices."""
    return DataError(
        f"The object of this scan has {count} slices: it was thick, and multi-slice objects are not reconstructed.",
        "Use a program with a multi-slice model (Ptychodus with pty-chi, PtychoShelves); for one slice, store one.",
    )


READER = ReaderSpec("cxi", "a CXI file", (".cxi",), sniff, read)
