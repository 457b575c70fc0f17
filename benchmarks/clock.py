"""The error of `ptychopinn reconstruct` over the seconds, beside rPIE from flat and pty-chi's LSQ-ML.

    python benchmarks/clock.py OUT [--seconds 4] [--scans 1e6-dense-right ...] [--ptychi 1e6-dense-right ...]

Twelve simulated scans (N = 64, textured objects, a disc): 1e3, 1e4 and 1e6 photons a pattern; overlap 0.7 and 0.5;
probe and positions right, or the probe 15% too wide and positions off by 1 px. OUT gets ``clock.png``, ``clock.json``
and ``clock.md``: for each scan the errors, and the ratio of ours to the best other method; and ``objects.png``, the
phase of the objects of one scan at some times.

The clock is the processor time of this process, on one thread; it starts when libraries are imported and the scan is
read. `reconstruct` runs once, and its objects count from when it has them; to hand them out is not counted. The steps
of the others depend on how many passes there will be, so each of 1, 2, 4, 8... passes is a run of its own that starts
at 0. Before its first object a method has a flat one. Where probe and positions are wrong, the others refine the probe.
pty-chi takes long, so it is run on the scans of ``--ptychi`` only, and needs ptychopinn-ptychi. The error is that of
the object in the box of positions (nrmse), after one complex factor, a ramp and a registration are removed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import zoom

from ptychopinn.automatic import reconstruct_automatically
from ptychopinn.config import SimulationConfig
from ptychopinn.config.automatic import AutomaticConfig
from ptychopinn.config.simulation import ObjectKind
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.metrics import Aligned, align, scan_box, score
from ptychopinn.reconstruction import Reconstruction
from ptychopinn.simulate import simulate_scan
from ptychopinn.solvers import frame_of
from ptychopinn.typing import ComplexArray
from ptychopinn.workflows import create_solver, load_reconstructor
from ptychopinn.workflows.pretrained import find_pretrained
from ptychopinn.workflows.reference import embed

DOSES, OVERLAPS, GUESSES = ("1e3", "1e4", "1e6"), {"dense": 0.7, "sparse": 0.5}, ("right", "wrong")
NAMES = tuple("-".join(parts) for parts in product(DOSES, OVERLAPS, GUESSES))
OURS, RPIE, LSQML = "reconstruct", "rPIE from flat", "pty-chi LSQ-ML"
OTHERS = {RPIE: "rpie", LSQML: "ptychi"}  # method to solver
SEED, ROWS, WIDER, MOVED_PX = 41, 16, 1.15, 1.0
SHOWN, SHOWN_AT = "1e6-sparse-wrong", (0.3, 1.0, 4.0)  # the scan whose objects are drawn, and at which seconds
Curve = list[tuple[float, float]]  # seconds and error, from (0, that of a flat object)


def make_scan(name: str, rows: int = ROWS) -> ScanDataset:
    """One of the twelve, with its true object and positions as they were given to the microscope."""
    dose, overlap, guess = name.split("-")
    wrong = guess == "wrong"
    scan = simulate_scan(
        SimulationConfig(
            N=64,
            rows=rows,
            cols=rows,
            overlap=OVERLAPS[overlap],
            seed=SEED,
            nphotons=float(dose),
            object_kind=ObjectKind.TEXTURED,
            position_error_px=MOVED_PX if wrong else 0.0,
        )
    )
    return replace(scan, probe=np.stack([wider(mode) for mode in scan.probe])) if wrong else scan


def wider(mode: ComplexArray) -> ComplexArray:
    """A mode (N, N) that is wider, with the same energy."""
    n = len(mode)
    large = zoom(mode.real, WIDER, order=1) + 1j * zoom(mode.imag, WIDER, order=1)
    first = (len(large) - n) // 2
    found = large[first : first + n, first : first + n]
    return (found * np.linalg.norm(mode) / np.linalg.norm(found)).astype(np.complex64)


def compare(obj: ComplexArray, origin: tuple[int, int], scan: ScanDataset) -> Aligned:
    """An object beside the true one."""
    truth = scan.object_guess
    assert truth is not None
    whole = embed(truth.shape, obj, origin)
    return align(truth, whole, scan_box(scan.positions, truth.shape))


def ours(scan: ScanDataset) -> list[tuple[float, Aligned]]:
    """`reconstruct` with the installed model that fits."""
    archive = find_pretrained(scan)
    network = None if archive is None else load_reconstructor(archive)
    objects: list[tuple[float, Reconstruction]] = []
    start = time.process_time()

    def keep(so_far: Callable[[], Reconstruction]) -> None:
        nonlocal start
        took = time.process_time() - start
        objects.append((took, so_far()))
        start = time.process_time() - took  # to show an object is not part of the work

    found = reconstruct_automatically(
        replace(scan, object_guess=None),
        network,
        AutomaticConfig(),
        update=keep,
    )
    print(f"    {' '.join(found.story)}", flush=True)
    objects.append((time.process_time() - start, found.reconstruction))
    return [(took, compare(one.object, one.frame.origin, scan)) for took, one in objects]


def other(solver: str, scan: ScanDataset, seconds: float, *, free: bool) -> Iterator[tuple[float, Aligned]]:
    """Runs of 1, 2, 4, 8... passes, until one takes longer."""
    blind, passes, took = replace(scan, object_guess=None), 1, 0.0
    while took < seconds:
        start = time.process_time()
        found = create_solver(solver, {"passes": passes, "update_probe": free}).reconstruct(blind)
        took = time.process_time() - start
        yield took, compare(found.object, frame_of(blind).origin, scan)
        passes *= 2


def measure(
    scan: ScanDataset, seconds: float, others: Sequence[str], *, free: bool
) -> dict[str, list[tuple[float, Aligned]]]:
    """The objects of each method: seconds and `Aligned`."""
    frame = frame_of(scan)
    flat = [(0.0, compare(np.ones(frame.shape, np.complex64), frame.origin, scan))]
    found = {OURS: flat + ours(scan)}
    for method in others:
        found[method] = flat + list(other(OTHERS[method], scan, seconds, free=free))
    return found


def curve_of(objects: Sequence[tuple[float, Aligned]]) -> Curve:
    """Seconds and errors."""
    return [(took, float(score(one)["nrmse"])) for took, one in objects]


def at(curve: Curve, seconds: float) -> float:
    """The error at a time: that of the last object before it."""
    return [error for took, error in curve if took <= seconds][-1]


def ratios(curves: dict[str, Curve], times: Sequence[float]) -> list[float]:
    """The error of `reconstruct` over the smallest of the others, at each time at which one of them has an object."""
    rest = [curve for name, curve in curves.items() if name != OURS]
    first = min(curve[1][0] for curve in [*rest, curves[OURS]])
    return [at(curves[OURS], t) / min(at(curve, t) for curve in rest) for t in times if t >= first]


def table(results: dict[str, dict[str, Curve]], times: Sequence[float]) -> str:
    """Errors at some times, and ratios over all, in Markdown."""
    shown = times[:: max(1, len(times) // 4)][-4:]
    methods = list(dict.fromkeys(method for curves in results.values() for method in curves))
    head = ["scan", *(f"{t:.2g} s: {' / '.join(methods)}" for t in shown), "median ratio", "largest"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    medians = []
    for name, curves in results.items():
        found = ratios(curves, times)
        medians.append(float(np.median(found)))
        cells = [" / ".join(f"{at(curves[one], t):.3f}" if one in curves else "-" for one in methods) for t in shown]
        lines.append(f"| {name} | {' | '.join(cells)} | {medians[-1]:.2f} | {max(found):.2f} |")
    lines.append(f"\nMedian of the medians: {np.median(medians):.2f}, the largest: {max(medians):.2f}.")
    return "\n".join(lines)


def draw(results: dict[str, dict[str, Curve]], seconds: float, path: Path) -> None:
    """A panel for each scan."""
    across = 4
    down = -(-len(results) // across)
    figure, axes = plt.subplots(down, across, figsize=(3 * across, 2.3 * down), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, (name, curves) in zip(axes.flat, results.items(), strict=False):
        axis.set_visible(True)
        for method, curve in curves.items():
            took, errors = zip(*curve, strict=True)
            axis.step([*took, max(seconds, took[-1])], [*errors, errors[-1]], where="post", label=method)
        axis.set(title=name.replace("-", ", "), xscale="symlog", yscale="log", xlim=(0, seconds))
        axis.set_xscale("symlog", linthresh=0.25)
    axes[0, 0].legend(fontsize="small")
    figure.supxlabel("processor time, s")
    figure.supylabel("error")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_objects(objects: dict[str, list[tuple[float, Aligned]]], path: Path) -> None:
    """The phase of the true object, and of the last object of each method before some times."""
    figure, axes = plt.subplots(len(objects), len(SHOWN_AT) + 1, figsize=(9, 2.4 * len(objects)), layout="constrained")
    truth = next(iter(objects.values()))[0][1].reference
    limits = dict(zip(("vmin", "vmax"), np.percentile(np.angle(truth), [1, 99]), strict=True))
    for row, (method, found) in zip(axes, objects.items(), strict=True):
        shown = [(f"{method}, {t:g} s", [one for took, one in found if took <= t][-1].reconstruction) for t in SHOWN_AT]
        for axis, (title, obj) in zip(row, [*shown, ("true", truth)], strict=True):
            axis.imshow(np.angle(obj), cmap="gray", **limits)
            axis.set_title(title, fontsize="small")
            axis.set_axis_off()
    figure.savefig(path, dpi=60)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="Folder of the results.")
    parser.add_argument("--seconds", type=float, default=4.0, help="Length of the clock (default: 4).")
    parser.add_argument("--scans", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help="Some of the scans.")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"Rows and columns of a scan (default: {ROWS}).")
    parser.add_argument(
        "--ptychi", nargs="*", choices=NAMES, default=(), metavar="NAME", help="Scans that pty-chi is run on too."
    )
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    others = {name: [RPIE, LSQML] if name in args.ptychi else [RPIE] for name in args.scans}
    every = list(dict.fromkeys(method for methods in others.values() for method in methods))
    measure(make_scan("1e6-sparse-right", 5), 0.0, every, free=False)  # imports what is imported late
    results: dict[str, dict[str, Curve]] = {}
    times = np.geomspace(0.1, args.seconds, 13).tolist()
    for name in args.scans:
        print(name, flush=True)
        objects = measure(make_scan(name, args.rows), args.seconds, others[name], free=name.endswith("wrong"))
        results[name] = {method: curve_of(found) for method, found in objects.items()}
        if name == SHOWN:
            draw_objects(objects, args.output / "objects.png")
        found: Any = {"seconds": args.seconds, "curves": results}
        (args.output / "clock.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    text = table(results, times)
    print(text)
    (args.output / "clock.md").write_text(text + "\n", "utf-8")
    draw(results, args.seconds, args.output / "clock.png")


if __name__ == "__main__":
    main()
