"""Head to head with others: upstream's published benchmark, and pty-chi on a measured and on a simulated scan.

    python benchmarks/head_to_head.py lines WORK --probes REAL_PROBES.npz [--train-time 170]
    python benchmarks/head_to_head.py star WORK --scan STAR.npz --reference REF.npz
    python benchmarks/head_to_head.py pair WORK

``lines`` is SIM-LINES-4X of PtychoPINN (github.com/hoidn/PtychoPINN, scripts/studies/sim_lines_4x), made again: N = 64,
an object of 392 x 392 pixels that is the middle of a picture of 400 random lines and their blurs, without phase; a
raster of 4 px; 1e9 photons a pattern; the probe of LCLS XPP. One object trains, another one is scored. ``star`` is the
Siemens star with its probe free, ``pair`` the simulated pair of textured objects (N = 64, 2,025 patterns, 1e6 photons).

Our network, trained for --train-time, is scored alone and after passes; rPIE and, where it is installed
(plugins/ptychi_backend), pty-chi's LSQ-ML start from a flat object. Scores are inside the box of positions after one
complex factor, a ramp and a registration are removed. Seconds are of one run on this machine: of the training, then of
each reconstruction, without start-up and reading.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.draw import line

import ptychopinn
from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.config.simulation import ObjectKind, ScanKind
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_object, read_scan, write_scan
from ptychopinn.errors import PluginError
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.reconstruction import Reconstruction, reconstruct
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import ComplexArray
from ptychopinn.workflows import create_solver, load_reconstructor, solve
from ptychopinn.workflows.folders import MODEL
from ptychopinn.workflows.reference import embed

N, SIDE_PX, LINES, STEP_PX = 64, 392, 400, 4
COLUMNS = ("amp_ssim", "phase_ssim", "nrmse", "amp_mae", "phase_corr")
PUBLISHED = (
    ("theirs, 1 pattern a group, 60 epochs", {"amp_ssim": 0.904, "amp_mae": 0.072}),
    ("theirs, 4 patterns a group, 60 epochs", {"amp_ssim": 0.968, "amp_mae": 0.040}),
)


def lines_object(seed: int) -> ComplexArray:
    """(392, 392) complex64: random lines and their blurs, of mean 1, without phase."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((2 * SIDE_PX, 2 * SIDE_PX))
    for y0, x0, y1, x1 in rng.integers(0, 2 * SIDE_PX, (LINES, 4)):
        picture[line(y0, x0, y1, x1)] = 1  # type: ignore[no-untyped-call]
    amplitude = sum(weight * gaussian_filter(picture, width) for weight, width in ((1, 1), (2, 5), (5, 10)))
    middle = np.asarray(amplitude)[SIDE_PX // 2 : -SIDE_PX // 2, SIDE_PX // 2 : -SIDE_PX // 2]
    return (middle / middle.mean()).astype(np.complex64)


def lines_scan(seed: int, probe: ComplexArray) -> ScanDataset:
    """A scan of such an object: every window that fits, in steps of 4 px."""
    side = (SIDE_PX - N) // STEP_PX + 1
    config = SimulationConfig(
        N=N, rows=side, cols=side, step_px=STEP_PX, scan_kind=ScanKind.RASTER, nphotons=1e9, seed=seed
    )
    return simulate_scan(config, obj=lines_object(seed), probe=probe)


def textured_scan(seed: int) -> ScanDataset:
    """One of the simulated pair."""
    return simulate_scan(
        SimulationConfig(N=N, rows=45, cols=45, seed=seed, nphotons=1e6, object_kind=ObjectKind.TEXTURED)
    )


def train(scan: ScanDataset, work: Path, seconds: float) -> tuple[Any, float]:
    """A network trained on a scan, and the seconds of its training; a finished run in the folder is used again."""
    run, path, took = work / "run", work / "train.npz", work / "seconds.json"
    if not took.exists():
        write_scan(path, replace(scan, object_guess=None))
        start = time.perf_counter()
        settings = ptychopinn.run_settings("torch", train={"max_time": seconds})
        ptychopinn.train_run(path, run, settings, overwrite=True)
        took.write_text(json.dumps(time.perf_counter() - start), encoding="utf-8")
    network = load_reconstructor(run / MODEL, backend="torch", options=None)
    return network, float(json.loads(took.read_text(encoding="utf-8")))


def methods(
    scan: ScanDataset, network: Any, flat: Sequence[int], *, free: bool
) -> Iterator[tuple[str, Callable[[], Reconstruction]]]:
    """Names of the methods, and what runs them; pty-chi only where it is installed."""
    for passes in (0, 1, 2, 10):
        config = InferConfig(refine=passes, refine_probe=free and passes > 0)
        yield f"network + {passes} passes" if passes else "network alone", partial(reconstruct, network, scan, config)
    for passes in flat:
        rpie = create_solver("rpie", {"passes": passes, "update_probe": free})
        yield f"rPIE, {passes} passes", partial(solve, rpie, scan)
    try:
        for passes in flat:
            other = create_solver("ptychi", {"passes": passes, "update_probe": free})
            yield f"pty-chi LSQ-ML, {passes} epochs", partial(solve, other, scan)
    except PluginError as error:
        print(f"pty-chi is left out: {error}")


def scores_of(found: Reconstruction, truth: ComplexArray, scan: ScanDataset) -> dict[str, float]:
    """Scores against the truth."""
    whole = embed(truth.shape, found.object, found.frame.origin)
    scores = score(align(truth, whole, scan_box(scan.positions, truth.shape)))
    return {name: float(scores[name]) for name in COLUMNS}


def show(name: str, seconds: float | None, scores: dict[str, float]) -> None:
    """Print a line of the table."""
    took = "" if seconds is None else f"{seconds:.1f}"
    cells = " | ".join(f"{scores[c]:.3f}" if c in scores else "" for c in COLUMNS)
    print(f"| {name} | {took} | {cells} |", flush=True)


def race(
    scan: ScanDataset, truth: ComplexArray, network: Any, flat: Sequence[int], *, free: bool
) -> list[dict[str, Any]]:
    """Run every method, and print the table."""
    print("| method | seconds | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 2) + "|")
    rows = []
    blind = replace(scan, object_guess=None)
    for name, run in methods(blind, network, flat, free=free):
        start = time.perf_counter()
        found = run()
        seconds = time.perf_counter() - start
        scores = scores_of(found, truth, scan)
        show(name, seconds, scores)
        rows.append({"method": name, "seconds": seconds, **scores})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=("lines", "star", "pair"))
    parser.add_argument("work", type=Path, help="Folder for scans and models; a finished training is used again.")
    parser.add_argument("--probes", help="For lines: an NPZ file with xpp_probe.")
    parser.add_argument("--scan", help="For star: the scan.")
    parser.add_argument("--reference", help="For star: the object to compare with.")
    parser.add_argument("--train-time", type=float, default=170, help="Seconds of the training.")
    parser.add_argument("--flat", type=int, nargs="+", default=[2, 10, 50], help="Passes of the methods from flat.")
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.benchmark == "lines":
        if not args.probes:
            parser.error("lines needs --probes")
        with np.load(args.probes) as probes:
            probe = probes["xpp_probe"]
        learned, scan = (lines_scan(seed, probe) for seed in (1, 2))
    elif args.benchmark == "pair":
        learned, scan = (textured_scan(seed) for seed in (1, 2))
    else:
        if not (args.scan and args.reference):
            parser.error("star needs --scan and --reference")
        learned = scan = read_scan(args.scan)
    truth = read_object(args.reference) if args.benchmark == "star" else scan.object_guess
    assert truth is not None
    network, seconds = train(learned, args.work, args.train_time)
    print(f"\n{len(scan)} patterns of {scan.N} x {scan.N}; training {seconds:.0f} s\n")
    rows = race(scan, truth, network, args.flat, free=args.benchmark == "star")
    if args.benchmark == "lines":
        for name, published in PUBLISHED:
            show(name, None, published)
    if args.json:
        args.json.write_text(json.dumps({"training": seconds, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
