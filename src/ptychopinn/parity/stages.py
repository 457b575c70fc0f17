"""The stages from a batch of patterns to expected counts, and their differences.

Input, probe and prediction come from a backend. Canvas, exit waves and intensity are computed from them by the core, so
their differences come from earlier stages or from growing rounding errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ptychopinn.config.infer import InferConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.scaling import fit_scaling
from ptychopinn.forward import exit_waves, intensity
from ptychopinn.geometry import Frame
from ptychopinn.metrics import ScanBox, align
from ptychopinn.reconstructor import Reconstructor
from ptychopinn.stitching import Stitcher, patch_weights
from ptychopinn.typing import AnyArray

STAGES = ("input", "probe", "prediction", "canvas", "exit_wave", "intensity")
OFFSETS = "offsets"  # corner of each patch on the canvas, not a stage
_MIN_REGISTERED_PX = 16


def stages_of(reconstructor: Reconstructor, data: ScanDataset, config: InferConfig) -> dict[str, AnyArray]:
    """Every stage of a batch.

    Parameters
    ----------
    data:
        The batch, a scan of b patterns.

    Returns
    -------
    Stage to array: ``input`` (b, N, N), ``probe`` (modes, N, N), ``prediction`` (b, n, n), ``canvas`` (H, W),
    ``exit_wave`` (b, N, N) of the first mode, ``intensity`` (b, N, N); and ``offsets`` (b, 2).
    """
    prediction = reconstructor.infer(data, config)
    n = prediction.patch_size
    patches = prediction.collect(len(data))
    frame = Frame.around(data.positions, n)
    probe = prediction.library.to_host(prediction.probe)
    stitcher = Stitcher(patch_weights(probe, n), frame)
    stitcher.add(patches, data.positions)
    canvas = stitcher.take_result().object
    local = frame.local(data.positions)
    waves = exit_waves(canvas, probe, local)
    scale = fit_scaling(data).input_scale
    return {
        "input": np.sqrt(data.counts(slice(None))) * np.float32(scale),
        "probe": probe,
        "prediction": patches,
        "canvas": canvas,
        "exit_wave": waves[:, 0].astype(np.complex64),
        "intensity": intensity(waves).astype(np.float32),
        OFFSETS: local - (n - 1) / 2,
    }


def statistics_of(array: AnyArray) -> dict[str, Any]:
    """Shape, dtype and spread of a stage."""
    finite = array[np.isfinite(array)]
    values: dict[str, Any] = {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "not_finite": int(array.size - finite.size),
    }
    parts = {"amplitude": np.abs(finite), "phase": np.angle(finite)} if np.iscomplexobj(array) else {"value": finite}
    for name, part in parts.items():
        if part.size:
            values[name] = {
                "mean": float(part.mean(dtype=np.float64)),
                "deviation": float(part.std(dtype=np.float64)),
                "least": float(part.min()),
                "largest": float(part.max()),
                "nonzero_share": float(np.count_nonzero(part) / part.size),
            }
    return values


def difference_of(a: AnyArray, b: AnyArray) -> dict[str, Any]:
    """Difference of two arrays of a stage, relative to the norm of the first."""
    if a.shape != b.shape:
        return {"relative": None, "largest": None, "reason": f"shapes {a.shape} and {b.shape}"}
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return {"relative": None, "largest": None, "reason": "values that are not finite"}
    norm = float(np.linalg.norm(a.ravel())) or 1.0
    gap = b.astype(np.complex128) - a
    return {"relative": float(np.linalg.norm(gap.ravel())) / norm, "largest": float(np.abs(gap).max(initial=0.0))}


def offset_of(a: AnyArray, b: AnyArray) -> dict[str, Any]:
    """Split a difference of the canvas, or of the mean over a batch, into factor, phase, shift and ramp."""
    if a.shape != b.shape:
        return {}
    product = np.vdot(b.ravel().astype(np.complex128), a.ravel())
    energy = float(np.vdot(b, b).real)
    found: dict[str, Any] = {}
    if energy > 0:
        found = {"factor": abs(product) / energy, "phase_rad": float(np.angle(product))}
    if a.ndim == 2 and np.iscomplexobj(a) and min(a.shape) >= _MIN_REGISTERED_PX and np.any(a):
        pair = align(np.asarray(a, np.complex128), np.asarray(b, np.complex128), ScanBox(0, a.shape[0], 0, a.shape[1]))
        found["shift_px"] = list(pair.shift_px)
        found["ramp_rad_per_px"] = list(pair.ramp_rad_per_px)
    return found


def first_difference(differences: Mapping[str, Mapping[str, Any]], tolerance: float) -> str | None:
    """The first stage that differs by more than the tolerance or cannot be compared, or None."""
    for stage in STAGES:
        relative = differences[stage]["relative"]
        if relative is None or relative > tolerance:
            return stage
    return None
