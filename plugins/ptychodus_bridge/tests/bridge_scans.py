"""Scans written with Ptychodus's own API. Used by the tests and, in other processes, by the GUI driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ptychodus.api.assemble import AssembledDiffractionData
from ptychodus.api.geometry import PixelGeometry
from ptychodus.api.io import save_diffraction_data, save_product
from ptychodus.api.object import Object, ObjectCenter
from ptychodus.api.probe import ProbeSequence
from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
from ptychodus.api.product import Product, ProductMetadata
from ptychodus.api.reconstruct import ReconstructInput

from ptychopinn.config import SimulationConfig
from ptychopinn.simulate import simulate_scan

PIXEL_M = (2.0e-8, 2.5e-8)  # (y, x): not square on purpose
WAVELENGTH_M = 1.239841984e-6 / 8800.0  # of 8800 eV
CENTER_M = (3.1e-6, -1.7e-6)  # of the object, (y, x): not at the origin on purpose


def simulated(rows: int = 6, size: int = 32, **changes: Any) -> Any:
    """A small simulated scan with its true object."""
    changes = {"object_kind": "letter", "nphotons": 1e5, "seed": 3, **changes}
    return simulate_scan(SimulationConfig(N=size, rows=rows, cols=rows, **changes))


def as_uint16(scan: Any) -> Any:
    """Its counts as detectors give them."""
    counts = np.asarray(scan.patterns)
    assert counts.max() < 2**16
    return counts.astype(np.uint16)


def make_product(
    positions_px: Any,
    probe: Any,
    obj: Any,
    *,
    indexes: Any = None,
    pixel_m: Any = PIXEL_M,
    opr_weights: Any = None,
    name: str = "tiny",
) -> Product:
    """A product whose positions, in pixels of the object, are these."""
    layers = obj if obj.ndim == 3 else obj[None]
    pixel = PixelGeometry(width_m=pixel_m[1], height_m=pixel_m[0])
    middle = (np.array(layers.shape[1:]) - 1) / 2
    metres = (np.asarray(positions_px) - middle) * pixel_m + CENTER_M
    # By position: name, comments, distance, energy (whose name changed in 1.7), photons, exposure, attenuation, angle.
    metadata = ProductMetadata(name, "of a test", 2.0, 8800.0, 1e5, 0.1, 0.0, 0.0)
    numbers = range(len(metres)) if indexes is None else indexes
    return Product(
        metadata=metadata,
        probe_positions=ProbePositionSequence(
            [ProbePosition(int(i), x_m=float(x), y_m=float(y)) for i, (y, x) in zip(numbers, metres, strict=True)]
        ),
        probes=ProbeSequence(np.asarray(probe, complex), opr_weights, pixel),
        object_=Object(
            layers.astype(complex), pixel, ObjectCenter(x_m=CENTER_M[1], y_m=CENTER_M[0]), [1e-6] * (len(layers) - 1)
        ),
        losses=[],
    )


def make_input(
    scan: Any, *, obj: Any = None, probe: Any = None, patterns: Any = None, bad: Any = None
) -> ReconstructInput:
    """What Ptychodus hands a reconstructor."""
    product = make_product(
        scan.positions, scan.probe if probe is None else probe, scan.object_guess if obj is None else obj
    )
    counts = as_uint16(scan) if patterns is None else patterns
    return ReconstructInput(counts, np.zeros(counts.shape[1:], bool) if bad is None else bad, product)


def write_files(folder: Path, counts: Any, product: Product, *, bad: Any = None, indexes: Any = None) -> None:
    """diffraction.h5 and product.h5."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(len(counts)) if indexes is None else np.asarray(indexes)
    pixel = product.object_.get_pixel_geometry()
    far = WAVELENGTH_M * product.metadata.detector_distance_m
    data = AssembledDiffractionData(
        numbers,
        counts,
        PixelGeometry(
            width_m=far / (counts.shape[2] * pixel.width_m), height_m=far / (counts.shape[1] * pixel.height_m)
        ),
        np.zeros(counts.shape[1:], bool) if bad is None else bad,
    )
    save_diffraction_data(folder / "diffraction.h5", data)
    save_product(folder / "product.h5", product)


def write_scan_folder(
    folder: Path, rows: int = 6, size: int = 32, *, known_object: bool = False, **changes: Any
) -> Any:
    """A simulated scan as Ptychodus's files, its object as ones unless it is known; returns the scan."""
    scan = simulated(rows, size, **changes)
    obj = scan.object_guess if known_object else np.ones_like(scan.object_guess)
    product = make_product(scan.positions, scan.probe, obj)
    write_files(folder, as_uint16(scan), product, bad=scan.bad_pixels)
    return scan


def write_settings(folder: Path, algorithm: str, group: str, values: dict[str, object]) -> None:
    """A settings.ini as a user would write it."""
    lines = ["[Processing]", f"algorithm = {algorithm}", "", f"[{group}]"]
    (folder / "settings.ini").write_text("\n".join([*lines, *(f"{k} = {v}" for k, v in values.items())]) + "\n")
