"""CXI files (Coherent X-ray Imaging Data Bank, cxidb.org/cxi.html, 1.6), also those of Ptychodus and cdtools."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.data.hdf5 import is_hdf5
from ptychopinn.data.hdf5_tree import Hdf5Tree
from ptychopinn.data.raw_scan import EV_METRES, JOULE_PER_EV, Geometry, RawScan
from ptychopinn.data.readers import hdf5_values as values
from ptychopinn.data.readers.shadow import refuse_near_field
from ptychopinn.data.readers.spec import ReaderSpec
from ptychopinn.errors import DataError
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray

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
    with Hdf5Tree(path) as tree:
        patterns = values.needed(tree, "patterns", *_DATA)
        if patterns.ndim != 3:
            raise DataError(f"The patterns have the shape {patterns.shape}.", "Save them as (n, H, W).")
        found = values.array(tree, *_TRANSLATION)
        positions = None if found is None else _positions(tree, found)
        mask = values.array(tree, f"{_DETECTOR}/mask")
        probe = values.complex_probe(values.array(tree, *_PROBE))
        raw = RawScan(
            patterns=patterns,
            positions=positions,
            unit="m",
            measurement=Measurement.COUNTS,
            probe=probe,
            bad_pixels=_bad(mask),
            geometry=_geometry(tree),
            metadata=ScanMetadata(source="CXI"),
            name=path.stem,
            notes=("Positions are the translations of the sample along the detector's axes.",),
        )
        raw = _with_object(tree, raw)
    refuse_near_field(raw)
    return raw


def _positions(tree: Hdf5Tree, found: FloatArray) -> FloatArray:
    """(n, 2) metres (y, x) of (n, 3) translations of the sample."""
    if found.ndim != 2 or found.shape[1] < 2 or found.dtype.kind not in "iuf":
        raise DataError(f"translation has the shape {found.shape}.", "Save it as (n, 3), metres.")
    moved = np.zeros((len(found), 3))
    moved[:, : min(3, found.shape[1])] = found[:, :3]
    axes = detector_axes(values.array(tree, f"{_DETECTOR}/basis_vectors"))
    return np.asarray(-moved @ axes.T)


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


def _geometry(tree: Hdf5Tree) -> Geometry:
    energy_j = values.number(tree, f"{_SOURCE}/energy")
    wavelength = values.number(tree, f"{_SOURCE}/wavelength")
    energy = None if not energy_j else energy_j / JOULE_PER_EV
    if energy is None and wavelength and wavelength > 0:
        energy = EV_METRES / wavelength
    x, y = (values.number(tree, f"{_DETECTOR}/{axis}_pixel_size") for axis in "xy")
    x, y = x or y, y or x
    if not x and (basis := values.array(tree, f"{_DETECTOR}/basis_vectors")) is not None and basis.ndim == 2:
        y, x = np.linalg.norm(basis.T if basis.shape == (3, 2) else basis, axis=-1).tolist()[:2]
    said = tuple(values.number(tree, f"{_EXTRAS}/probe_pixel_{side}_m") for side in ("height", "width"))
    return Geometry(
        energy_eV=energy,
        distance_m=_absolute(values.number(tree, f"{_DETECTOR}/distance")),
        detector_pixel_m=None if x is None or y is None else (y, x),
        object_pixel_m=None if said[0] is None or said[1] is None else (said[0], said[1]),
    )


def _absolute(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _bad(mask: FloatArray | None) -> BoolArray | None:
    """CXI's mask is a field of bits; no bit, or only that of a signal above background, is a good pixel."""
    if mask is None or mask.dtype.kind not in "iub":
        return values.bad_pixels(mask)
    return values.bad_pixels(np.where(mask == _ABOVE_BACKGROUND, 0, mask))


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
        return raw.said("The object of the file has no place in the frame of the positions; it is not used.")
    local = (raw.positions - np.array(centre, float)) / np.array(pixel, float) + (np.array(obj.shape) - 1) / 2
    geometry = Geometry(
        raw.geometry.energy_eV,
        raw.geometry.distance_m,
        raw.geometry.detector_pixel_m,
        (float(pixel[0] or 0), float(pixel[1] or 0)),
    )
    return raw.said(object_guess=obj, positions=local, unit="px", geometry=geometry)


def several_slices(count: int) -> DataError:
    """The refusal of an object of several slices."""
    return DataError(
        f"The object of this scan has {count} slices: it was thick, and multi-slice objects are not reconstructed.",
        "Use a program with a multi-slice model (Ptychodus with pty-chi, PtychoShelves); for one slice, store one.",
    )


READER = ReaderSpec("cxi", "a CXI file", (".cxi",), sniff, read)
