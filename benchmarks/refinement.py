"""What refinement is worth: prediction, prediction and K passes, and ePIE and rPIE from a flat object, in one table.

    python benchmarks/refinement.py RUN SCAN.npz [--passes 1,2,5] [--flat 1,2,5,20,100] [--every 1,2,3]
        [--refine-probe] [--predict-overlap 0.4] [--reference REF.npz] [--columns 45] [--json FILE]

RUN is a run directory or a model archive. rPIE is the solver of the passes on its own course (small regularisation and
momentum that settle), ePIE the same as published. Scores are against objectGuess or the reference, inside the box of
positions; registration, one complex factor and one ramp are removed. With --every k only each k-th position of each
k-th row of the scan is used; it must be a grid in reading order. Seconds are of the solver alone (or of the prediction;
of both with --predict-overlap), on this machine, in this run.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.bundle import read_bundle
from ptychopinn.config import InferConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_object, read_scan
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.metrics.quality import RESIDUAL_PATTERNS, forward_residual
from ptychopinn.reconstruction import reconstruct
from ptychopinn.refinement import RefineOptions, StartKind, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers import EPIE, RPIE, epie
from ptychopinn.solvers.epie import CACHE_BYTES
from ptychopinn.solvers.options import PassOptions
from ptychopinn.stitching import COVERED
from ptychopinn.typing import ComplexArray
from ptychopinn.workflows import load_reconstructor
from ptychopinn.workflows.folders import model_path

_BUDGET_BYTES = InferConfig().memory_budget_mb * 2**20
COLUMNS = ("amp_ssim", "phase_ssim", "nrmse", "phase_corr")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("scan")
    parser.add_argument("--passes", type=numbers, default=[1, 2, 5])
    parser.add_argument("--flat", type=numbers, default=[1, 2, 5, 20, 100])
    parser.add_argument("--every", type=numbers, default=[1])
    parser.add_argument("--columns", type=int, help="Positions in a row (default: the scan is square).")
    parser.add_argument("--reference", help="NPZ with the object to compare with (default: the scan's objectGuess).")
    parser.add_argument("--refine-probe", action="store_true", help="Free the probe too, in lines of their own.")
    parser.add_argument("--predict-overlap", type=float, help="Also with the network for a part of the patterns only.")
    parser.add_argument("--json", help="Write the figures to this file.")
    args = parser.parse_args()
    scan = read_scan(args.scan)
    truth = read_object(args.reference) if args.reference else scan.object_guess
    archive = model_path(args.model)
    reconstructor = load_reconstructor(archive, backend=read_bundle(archive).manifest.writer.backend, options=None)
    rows: list[dict[str, Any]] = []
    for every in args.every:
        rows += measured(reconstructor, thinned(scan, every, args.columns), truth, every, args)
    result = {"machine": platform.processor() or platform.machine(), "scan": Path(args.scan).name, "rows": rows}
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def numbers(text: str) -> list[int]:
    """``1,2,5`` as a list."""
    return [int(part) for part in text.split(",") if part]


def thinned(scan: ScanDataset, every: int, columns: int | None) -> ScanDataset:
    """Each ``every``-th position of each ``every``-th row."""
    if every == 1:
        return scan
    columns = columns or math.isqrt(len(scan))
    row, column = np.divmod(np.arange(len(scan)), columns)
    return scan.select(np.flatnonzero((row % every == 0) & (column % every == 0)))


def measured(
    reconstructor: Any, scan: ScanDataset, truth: ComplexArray | None, every: int, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """All lines of one scan."""
    rows: list[dict[str, Any]] = []

    def line(what: str, obj: ComplexArray, frame: Frame, probe: ComplexArray, seconds: float) -> None:
        figures = {
            "every": every,
            "patterns": len(scan),
            "what": what,
            "residual": forward_residual(obj, frame.origin, probe, scan, max_patterns=RESIDUAL_PATTERNS),
            "seconds": seconds,
        }
        if truth is not None:
            whole = placed(obj, frame, truth.shape)
            scores = score(align(truth, whole, scan_box(scan.positions, truth.shape)))
            figures |= {name: float(scores[name]) for name in COLUMNS}
        if not rows:
            print(f"\n{len(scan)} patterns" + (f", every {every} in each direction" if every > 1 else ""))
            print(f"{'':34s}{'R':>8s}{'seconds':>9s}" + "".join(f"{c:>12s}" for c in COLUMNS if c in figures))
        rows.append(figures)
        print(
            f"{what:34s}{figures['residual']:8.4f}{seconds:9.2f}"
            + "".join(f"{figures[c]:12.3f}" for c in COLUMNS if c in figures),
            flush=True,
        )

    start = time.perf_counter()
    found = reconstruct(reconstructor, scan, InferConfig(refine=0))
    line("network alone", found.object, found.frame, found.probe, time.perf_counter() - start)
    covered = found.coverage > COVERED
    for free in (False, True)[: 1 + args.refine_probe]:
        name = ", probe free" if free else ""
        for passes in args.passes:
            start = time.perf_counter()
            better = refine(
                Patterns(scan, host_budget_bytes=_BUDGET_BYTES if passes > 1 else 0),
                ScanModel(found.probe, found.positions),
                Canvas(found.object, found.frame, covered=covered),
                RefineOptions(passes, update_probe=free),
                kind=StartKind.SYNCHRONISED,
            )
            kept = better.summary.passes_kept
            what = f"network + {passes}{name}" + (f" ({kept} kept)" if kept != passes else "")
            line(what, better.object, found.frame, better.model.probe, time.perf_counter() - start)
    for passes in args.passes if args.predict_overlap is not None else ():
        config = InferConfig(refine=passes, predict_overlap=args.predict_overlap, refine_probe=args.refine_probe)
        start = time.perf_counter()
        thin = reconstruct(reconstructor, scan, config)
        name = f"network for {thin.placed} + {passes}" + (", probe free" if args.refine_probe else "")
        line(name, thin.object, thin.frame, thin.probe, time.perf_counter() - start)
    own = probe_in_counts(scan, fit_scaling(scan), follow_offset=False)
    starts = [("flat, rPIE", found.probe, False, RPIE), ("flat, ePIE", found.probe, False, EPIE)]
    if args.refine_probe:
        starts += [("flat, scan's probe, free", own, True, RPIE)]
    for name, probe, free, solver in starts:
        for passes in args.flat:
            start = time.perf_counter()
            options = PassOptions(solver().schedule(passes), update_probe=free)
            patterns, empty = Patterns(scan, host_budget_bytes=CACHE_BYTES), flat_object(found.frame)
            flat = epie(patterns, probe, passes=passes, options=options, start=Canvas(empty, found.frame))
            obj = np.where(covered, flat.object, np.complex64(1))
            line(f"{name}: {passes}", obj, found.frame, flat.probe, time.perf_counter() - start)
    return rows


def placed(obj: ComplexArray, frame: Frame, shape: tuple[int, ...]) -> ComplexArray:
    """The object in an array whose first pixel is position (0, 0); 1 beyond it."""
    if frame.origin == (0, 0) and obj.shape == shape:
        return obj
    whole = np.ones(shape, np.complex64)
    (top, left), (height, width) = frame.origin, obj.shape
    rows = slice(max(top, 0), max(min(top + height, shape[0]), 0))
    columns = slice(max(left, 0), max(min(left + width, shape[1]), 0))
    whole[rows, columns] = obj[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return whole


if __name__ == "__main__":
    main()
