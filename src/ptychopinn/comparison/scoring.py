"""Score one reconstruction of one scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ScoreError
from ptychopinn.metrics import (
    MIN_SIDE_PX,
    Aligned,
    FrcCurve,
    Measures,
    ScanBox,
    align,
    flatness,
    forward_residual,
    frc,
    frc50,
    ramp_of,
    remove_linear_phase,
    scan_box,
    score,
)
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray
from ptychopinn.workflows.reference import embed

QUANTITIES = ("amp", "phase")
AGAINST_REFERENCE = ("mae", "mse", "psnr", "ssim", "ms_ssim", "corr", "frc50")
STATISTICS = ("mean", "max", "nonzero_share")
Figure = tuple[str, str]  # quantity, metric
_LESS_IS_BETTER = frozenset(
    {"mae", "mse", "nrmse", "residual", "training_seconds", "reconstruction_seconds", "peak_anonymous_mib"}
)
_MORE_IS_BETTER = frozenset({"psnr", "ssim", "ms_ssim", "corr", "frc50", "frc50_split", "patterns_per_second"})


@dataclass(frozen=True, eq=False)
class Scores:
    """Figures and arrays of one reconstruction."""

    figures: dict[Figure, float] = field(default_factory=dict)  # (quantity, metric) to value
    skipped: dict[Figure, str] = field(default_factory=dict)  # (quantity, metric) to the reason why there is no value
    # Name to array: ``reconstruction`` and, if there is one, ``reference``, complex64 inside the scan box, aligned;
    # ``frc/QUANTITY`` and ``frc_split/QUANTITY``, (2, k) frequency and correlation.
    arrays: dict[str, AnyArray] = field(default_factory=dict)
    facts: dict[str, list[float]] = field(default_factory=dict)  # what the alignment removed, and the box


@dataclass(frozen=True, eq=False)
class ScoredObject:
    """A reconstruction that is scored."""

    object: ComplexArray  # (H, W) complex
    origin: tuple[int, int]  # (y, x): its pixel (0, 0) in the frame of the scan's positions
    probe: ComplexArray  # (modes, N, N) complex, in counts
    # (n, 2) float64 (y, x), where it put the patterns; None: where the scan says. The residual is taken there; the box
    # is always that of the scan, so that all reconstructions are compared on the same pixels.
    positions: FloatArray | None = None


def score_scan(
    data: ScanDataset,
    found: ScoredObject,
    reference: ComplexArray | None,
    halves: tuple[ComplexArray, ComplexArray] | str,
) -> Scores:
    """Score a reconstruction.

    ``reference`` is the true object in the frame of the positions, (H', W') complex. ``halves`` are (H, W) objects of
    the odd and of the even patterns, in the frame of the reconstruction; or why there are none.
    """
    scores, obj, origin = Scores(), found.object, found.origin
    box = scan_box(data.positions - np.asarray(origin), obj.shape)
    _statistics(scores, obj, box)
    placed = data if found.positions is None else replace(data, positions=found.positions)
    scores.figures["object", "residual"] = forward_residual(obj, origin, found.probe, placed)
    _against_reference(scores, data, obj, origin, box, reference)
    _split(scores, box, halves)
    return scores


def rescore(arrays: Mapping[str, AnyArray]) -> dict[Figure, float]:
    """Compute the figures against the reference again, from the aligned arrays."""
    if "reference" not in arrays:
        return {}
    pair = Aligned(
        arrays["reference"].astype(np.complex128),
        arrays["reconstruction"].astype(np.complex128),
        (0.0, 0.0),
        (0.0, 0.0),
        1 + 0j,
        True,
        0,
    )
    return _by_figure(score(pair))[0]


def all_figures() -> list[Figure]:
    """Every (quantity, metric) of `score_scan`, in the order of the table."""
    compared = [(quantity, metric) for quantity in QUANTITIES for metric in AGAINST_REFERENCE]
    own = [(quantity, metric) for quantity in QUANTITIES for metric in ("frc50_split", *STATISTICS)]
    return [*compared, ("object", "nrmse"), ("object", "residual"), ("object", "flatness"), *own]


def best_candidates(metric: str, values: Mapping[str, float | None]) -> list[str]:
    """The names with the best value of a metric; empty if the metric has no order or there is no value."""
    known = {name: value for name, value in values.items() if value is not None}
    if not known or metric not in _LESS_IS_BETTER | _MORE_IS_BETTER:
        return []
    top = (min if metric in _LESS_IS_BETTER else max)(known.values())
    return [name for name, value in known.items() if value == top]


def parts_of(obj: ComplexArray) -> dict[str, FloatArray]:
    """Amplitude, and phase relative to that of the mean."""
    return {"amp": np.abs(obj), "phase": np.angle(obj * np.exp(-1j * np.angle(obj.mean())))}


def _by_figure(scores: Measures) -> tuple[dict[Figure, float], dict[Figure, str]]:
    """The values of scores, and why the others have none."""
    names = {f"{quantity}_{metric}": (quantity, metric) for quantity in QUANTITIES for metric in AGAINST_REFERENCE}
    names["nrmse"] = ("object", "nrmse")
    figures = {figure: scores[name] for name, figure in names.items() if name not in scores.missing}
    return figures, {names[name]: reason for name, reason in scores.missing.items()}


def _statistics(found: Scores, obj: ComplexArray, box: ScanBox) -> None:
    """Mean, largest magnitude and share of nonzero pixels inside the box."""
    inside = obj[box.slices]
    if inside.size == 0:
        reason = "the scan is too small to have a box inside its positions"
        found.skipped["object", "flatness"] = reason
        found.skipped.update({(quantity, metric): reason for quantity in QUANTITIES for metric in STATISTICS})
        return
    found.figures["object", "flatness"] = flatness(obj, box)
    for quantity, part in parts_of(inside).items():
        found.figures[quantity, "mean"] = float(part.mean())
        found.figures[quantity, "max"] = float(np.abs(part).max())
        found.figures[quantity, "nonzero_share"] = float(np.count_nonzero(part) / part.size)


def _against_reference(
    found: Scores,
    data: ScanDataset,
    obj: ComplexArray,
    origin: tuple[int, int],
    box: ScanBox,
    reference: ComplexArray | None,
) -> None:
    reason = "no reference was given" if reference is None else ""
    if reference is not None:
        there = scan_box(data.positions, reference.shape)
        if min(there.shape) < MIN_SIDE_PX:
            reason = f"the box of scan positions is under {MIN_SIDE_PX} pixels wide"
    if reference is None or reason:
        found.skipped.update({figure: reason for figure in all_figures() if figure[1] in AGAINST_REFERENCE})
        found.skipped["object", "nrmse"] = reason
        inside = obj[box.slices].astype(np.complex128)
        if inside.size:
            flat = remove_linear_phase(inside, ramp_of(inside))
            found.arrays["reconstruction"] = (flat * np.exp(-1j * np.angle(flat.mean()))).astype(np.complex64)
            found.facts["box"] = [box.y0, box.y1, box.x0, box.x1]
        return
    pair = align(reference, embed(reference.shape, obj, origin), there)
    figures, skipped = _by_figure(score(pair))
    found.figures.update(figures)
    found.skipped.update(skipped)
    found.arrays["reference"] = pair.reference.astype(np.complex64)
    found.arrays["reconstruction"] = pair.reconstruction.astype(np.complex64)
    found.facts.update(
        {
            "box": [there.y0, there.y1, there.x0, there.x1],
            "shift_px": list(pair.shift_px),
            "ramp_rad_per_px": list(pair.ramp_rad_per_px),
            "factor": [pair.factor.real, pair.factor.imag],
        }
    )
    found.arrays.update(_curves("frc", pair))


def _split(found: Scores, box: ScanBox, halves: tuple[ComplexArray, ComplexArray] | str) -> None:
    if not isinstance(halves, str) and min(box.shape) < MIN_SIDE_PX:
        halves = f"the box of scan positions is under {MIN_SIDE_PX} pixels wide"
    if isinstance(halves, str):
        found.skipped.update({(quantity, "frc50_split"): halves for quantity in QUANTITIES})
        return
    curves = _curves("frc_split", align(halves[0], halves[1], box))
    found.arrays.update(curves)
    for quantity in QUANTITIES:
        try:
            found.figures[quantity, "frc50_split"] = frc50(FrcCurve(*curves[f"frc_split/{quantity}"]))
        except ScoreError as error:
            found.skipped[quantity, "frc50_split"] = error.problem


def _curves(name: str, pair: Aligned) -> dict[str, AnyArray]:
    turn = np.exp(-1j * np.angle(pair.reference.mean()))
    curves = {}
    for quantity, of, unit in (("amp", np.abs, 0.0), ("phase", np.angle, 1.0)):
        curve = frc(of(pair.reference * turn), of(pair.reconstruction * turn), unit)
        curves[f"{name}/{quantity}"] = np.stack([curve.frequency, curve.correlation])
    return curves
