"""Convert Ptychodus's reconstruction input to a scan, and a reconstructed object to its output.

Both count pixels alike: integers are pixel centres, and the patch at c starts at ``c - (N - 1) / 2``. Ptychodus gives
positions in metres around the object's centre; the pixels here are those of the object array handed over.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ptychopinn.data.dataset import Measurement, ScanDataset, ScanMetadata
from ptychopinn.data.raw_scan import Geometry, RawScan, dataset_of
from ptychopinn.data.sizes import fit_size, resample_placed, resample_probe, rule_for
from ptychopinn.errors import DataError
from ptychopinn.probe_variation import ProbeVariation, mean_and_variation, to_opr
from ptychopinn.product import Product as Reconstructed
from ptychopinn.product import origin_of
from ptychopinn.typing import ComplexArray, FloatArray

_POSITION_TOLERANCE_PX = 1e-4  # rounding of what was not moved
_PIXEL_TOLERANCE = 1e-3  # of a pixel's width, between probe and object
_log = logging.getLogger("ptychopinn.ptychodus")


def scan_of(parameters: Any, *, with_object: bool) -> ScanDataset:
    """What Ptychodus hands over, a `ptychodus.api.reconstruct.ReconstructInput`, as a scan.

    Counts as they are, cropped, padded or binned to a size that networks take; positions in pixels of the object handed
    over, or of the pixels that belong to that size (`object_scales`); all modes of the probe; on request the object, as
    the known one of supervised training. A probe that varies from position to position (OPR) becomes its mean and a
    variation. Layers of an object are multiplied, which is logged.

    Raises
    ------
    DataError
        If the probe does not fit the patterns, or geometry is missing.
    """
    patterns, product = parameters.diffraction_patterns, parameters.product
    pixel = _pixel_size(product)
    positions = positions_px(product)
    if len(positions) != len(patterns):
        raise DataError(
            f"There are {len(patterns)} patterns and {len(positions)} positions.", "Load data that belong together."
        )
    metadata = product.metadata
    energy = getattr(metadata, "photon_energy_eV", None) or getattr(metadata, "probe_energy_eV", None)
    probe, variation = _probe(product)
    raw = fit_size(
        RawScan(
            patterns=patterns,
            positions=positions,
            measurement=Measurement.COUNTS,
            probe=probe,
            probe_variation=variation,
            object_guess=_object(product) if with_object else None,
            bad_pixels=np.asarray(parameters.bad_pixels, bool),
            geometry=Geometry(
                energy_eV=_positive(energy),
                distance_m=_positive(metadata.detector_distance_m),
                object_pixel_m=pixel,
            ),
            metadata=ScanMetadata(source="Ptychodus"),
            name=metadata.name or "scan",
        )
    )
    for note in raw.notes:
        _log.info("%s", note)
    for warning in raw.warnings:
        _log.warning("%s", warning)
    return dataset_of(raw)


def object_scales(parameters: Any, data: ScanDataset) -> tuple[float, float]:
    """(y, x) pixels of a scan, from `scan_of`, in one of the object handed over; (1, 1) for supported sizes."""
    height, width = parameters.diffraction_patterns.shape[1:]
    if (height, width) == (data.N, data.N):
        return 1.0, 1.0
    rule = rule_for((height, width), _probe(parameters.product)[0])
    return data.N * rule.binning / height, data.N * rule.binning / width


def positions_px(product: Any) -> FloatArray:
    """(n, 2) float64 (y, x): positions of a Ptychodus product as pixel indices of its object array."""
    object_ = product.object_
    center, (height_m, width_m) = object_.get_center(), _pixel_size(product)
    metres = np.array([(point.y_m, point.x_m) for point in product.probe_positions], np.float64).reshape(-1, 2)
    middle = (np.array([object_.height_px, object_.width_px]) - 1) / 2
    found: FloatArray = (metres - [center.y_m, center.x_m]) / [height_m, width_m] + middle
    return found


def output_product(parameters: Any, found: Reconstructed, losses: Sequence[Sequence[float]]) -> Any:
    """The `ptychodus.api.product.Product` of a reconstruction.

    Parameters
    ----------
    parameters:
        What was handed over; its metadata stay.
    found:
        Product of the reconstruction, from `in_frame_of_input`. Object, probe and positions come from it, because they
        belong together. The object has the frame of the object handed over, made larger where the reconstruction
        reaches beyond it; what no pattern covers is 1. A probe that varies
        becomes OPR modes and their weights. The flux becomes a factor of the weights, if the probe has one incoherent
        mode. A background is left out, because Ptychodus has no place for it. A probe of another size than the one
        handed over is left out, too.
    losses:
        (epoch, loss) pairs of the training.
    """
    from ptychodus.api.object import Object, ObjectCenter
    from ptychodus.api.product import LossValue, Product

    product = parameters.product
    given, obj = product.object_, found.object
    origin = np.array(found.origin)
    shape = np.array([given.height_px, given.width_px])
    low, high = origin, origin + obj.shape
    if shape.all():
        low, high = np.minimum(low, 0), np.maximum(high, shape)
    canvas = np.ones(tuple(high - low), np.complex64)
    y, x = origin - low
    canvas[y : y + obj.shape[0], x : x + obj.shape[1]] = obj
    pixel, center = given.get_pixel_geometry(), given.get_center()
    shift = low + (high - low - 1) / 2 - (shape - 1) / 2  # of the centre, in pixels
    return Product(
        metadata=product.metadata,
        probe_positions=_moved_positions(product, found.positions),
        probes=_probes(product, found),
        object_=Object(
            array=canvas,
            pixel_geometry=pixel.copy(),
            center=ObjectCenter(
                x_m=center.x_m + float(shift[1]) * pixel.width_m, y_m=center.y_m + float(shift[0]) * pixel.height_m
            ),
        ),
        losses=[LossValue(int(epoch), float(value)) for epoch, value in losses],
    )


def in_frame_of_input(parameters: Any, data: ScanDataset, found: Reconstructed) -> Reconstructed:
    """A reconstruction with positions and object in pixels of the object handed over.

    Parameters
    ----------
    data:
        From `scan_of`.
    found:
        Product of its reconstruction.
    """
    down, given = object_scales(parameters, data), positions_px(parameters.product)
    obj, origin = found.object, origin_of(found, data.positions)
    moved = (found.local_positions + origin - data.positions) / down
    probe, variation, size = found.probe, found.variation, parameters.diffraction_patterns.shape[1:]
    if down != (1.0, 1.0):
        obj, origin = resample_placed(obj, origin, (1 / down[0], 1 / down[1]))
        if rule_for(size, _probe(parameters.product)[0]).binning == 1:
            probe = resample_probe(probe, size)
            if variation is not None:
                variation = replace(variation, modes=resample_probe(variation.modes, size))
    return replace(
        found,
        object=obj,
        origin=origin,
        positions=given + moved,
        probe=probe,
        variation=variation,
        background=None,
        coverage=None,
    )


def _probes(product: Any, found: Reconstructed) -> Any:
    """The probe of a reconstruction, with its variation as OPR modes, and the roots of its flux in their weights."""
    from ptychodus.api.probe import ProbeSequence

    given = product.probes
    if found.probe.shape[1:] != (given.height_px, given.width_px):
        _log.warning("The patterns were binned; the product keeps the probe that was handed over.")
        return given
    array, weights = to_opr(found.probe, found.variation)
    if found.flux is not None and len(found.probe) == 1:
        weights = np.sqrt(np.asarray(found.flux, np.float64))[:, None] * (1 if weights is None else weights)
    return ProbeSequence(array.astype(np.complex64), weights, product.object_.get_pixel_geometry().copy())


def _moved_positions(product: Any, positions: FloatArray) -> Any:
    """The positions of a product, at other places where a refinement moved them.

    Parameters
    ----------
    positions:
        (n, 2) float64 (y, x), pixels of its object array.
    """
    from ptychodus.api.probe_positions import ProbePositionSequence

    moved = positions - positions_px(product)
    if len(moved) == 0 or np.abs(moved).max() < _POSITION_TOLERANCE_PX:
        return product.probe_positions
    height_m, width_m = _pixel_size(product)
    return ProbePositionSequence(
        [
            replace(point, x_m=point.x_m + float(dx) * width_m, y_m=point.y_m + float(dy) * height_m)
            for point, (dy, dx) in zip(product.probe_positions, moved, strict=True)
        ]
    )


def _pixel_size(product: Any) -> tuple[float, float]:
    """(y, x) metres of an object pixel."""
    try:
        pixel = product.object_.get_pixel_geometry()
        product.object_.get_center()
    except ValueError as error:
        raise DataError(f"The product cannot be used: {error}", "Give its object a geometry in Ptychodus.") from error
    if not (pixel.height_m > 0 and pixel.width_m > 0):
        raise DataError(
            f"The object's pixels are {pixel.height_m} m high and {pixel.width_m} m wide.",
            "Set detector distance, photon energy and detector pixel size in Ptychodus.",
        )
    try:
        probe = product.probes.get_pixel_geometry()
    except ValueError:
        return pixel.height_m, pixel.width_m
    for side in ("height_m", "width_m"):
        one, other = getattr(probe, side), getattr(pixel, side)
        if not math.isclose(one, other, rel_tol=_PIXEL_TOLERANCE):
            raise DataError(
                f"The {side} of a pixel is {one:.6g} in the probe and {other:.6g} in the object.",
                "Resample one of them in Ptychodus so that they agree.",
            )
    return pixel.height_m, pixel.width_m


def _probe(product: Any) -> tuple[ComplexArray, ProbeVariation | None]:
    """(modes, N, N) complex64, and how its first mode varies over the positions."""
    array = np.asarray(product.probes.get_array())
    mean, variation = mean_and_variation(array, product.probes.get_opr_weights_or_none())
    if variation is not None:
        _log.info("The probe varies over the scan (%d OPR modes); passes start from it.", array.shape[0])
    elif array.ndim == 4 and array.shape[0] > 1:
        _log.warning("The probe has %d OPR modes without weights; the first is taken for all positions.", len(array))
    probe: ComplexArray = mean.astype(np.complex64)
    if probe.size == 0 or not np.abs(probe).any():
        raise DataError("The product has no probe.", "Generate or load a probe in Ptychodus.")
    return probe, variation


def _object(product: Any) -> ComplexArray | None:
    """(H, W) complex64; None where there is none."""
    array = np.asarray(product.object_.get_array())
    if array.size == 0:
        return None
    layers = array[None] if array.ndim == 2 else array
    if len(layers) > 1:
        _log.warning("The object has %d layers; their product is taken.", len(layers))
    flat: ComplexArray = layers.prod(axis=0).astype(np.complex64)
    return flat


def _positive(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) and value > 0 else None
