"""What wrong positions, a flickering beam and a background cost, and what fitting them wins back.

    python benchmarks/real_scans.py [PROBES.npz] [--passes 20] [--size 128] [--json FILE]

Scans are simulated, solved by passes from a flat object, and compared with the truth: with the effect held, and with it
fitted. PROBES.npz has measured probes under keys that end in ``_probe``, (modes, N, N) complex; their middle is used.
Without it the probes are simulated. It prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.config import SimulationConfig
from ptychopinn.config.infer import Background
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.geometry import Canvas, Frame, flat_object
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.refinement import RefineOptions, refine
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate import simulate_probe, simulate_scan, simulated_truth
from ptychopinn.solvers.epie import rpie_schedule
from ptychopinn.typing import ComplexArray, FloatArray

POSITIONS = {"update_positions": True}
FLUX = {"update_flux": True}
BACKGROUND = {"update_background": Background.SMOOTH}
EFFECTS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, POSITIONS | FLUX | BACKGROUND),
    "positions off by 0.5 px along each axis": ({"position_error_px": 0.5}, POSITIONS),
    "positions off by 2 px along each axis": ({"position_error_px": 2.0}, POSITIONS),
    "scale off by 2%": ({"position_scale_error": 0.02}, POSITIONS),
    "drift of 4 px": ({"drift_px": 4.0}, POSITIONS),
    "flux varies by 10%": ({"flux_deviation": 0.1}, FLUX),
    "background of 3%": ({"background_share": 0.03}, BACKGROUND),
    "0.5 px, 10% and 3% together": (
        {"position_error_px": 0.5, "flux_deviation": 0.1, "background_share": 0.03},
        POSITIONS | FLUX | BACKGROUND,
    ),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probes", nargs="?", help="NPZ with measured probes.")
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--size", type=int, default=128, help="Largest N; larger probes are cropped to it.")
    parser.add_argument("--rows", type=int, default=15, help="Rows and columns of positions.")
    parser.add_argument("--json", help="Write the figures to this file.")
    given = parser.parse_args()
    found = []
    print("| probe | effect | error held | error fitted | positions off, px | after, px | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, probe in probes(given.probes, given.size).items():
        for effect, (simulated, fitted) in EFFECTS.items():
            line = measure(probe, given.rows, given.passes, simulated, fitted)
            found.append({"probe": name, "effect": effect, **line})
            figures = (line["held"], line["fitted"], line["off_px"], line["after_px"])
            print(f"| {name} | {effect} | " + " | ".join(f"{v:.3f}" for v in figures) + f" | {line['seconds']:.1f} |")
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1))


def probes(path: str | None, size: int) -> dict[str, ComplexArray]:
    """Name to (modes, N, N) complex."""
    if path is None:
        return {kind: simulate_probe(kind, min(size, 64), photons=1.0) for kind in ("disc", "annular", "defocused")}
    with np.load(path) as file:
        known = {key.removesuffix("_probe"): file[key] for key in file.files if key.endswith("_probe")}
    found = {}
    for name, probe in known.items():
        low = max((probe.shape[-1] - size) // 2, 0)
        found[name] = probe[:, low : low + size, low : low + size]
    return found


def measure(
    probe: ComplexArray, rows: int, passes: int, simulated: Mapping[str, Any], fitted: Mapping[str, Any]
) -> dict[str, float]:
    """Errors of the object with an effect held and fitted, and of the positions before and after."""
    config = SimulationConfig(
        N=probe.shape[-1],
        rows=rows,
        cols=rows,
        overlap=0.75,
        object_kind="mixture",
        nphotons=1e6,
        seed=11,
        **simulated,
    )
    scan, truth = simulate_scan(config, probe=probe), simulated_truth(config, probe=probe).positions
    box = Frame.around(scan.positions, scan.N)
    start = Canvas(flat_object(box), box)
    patterns = Patterns(scan, host_budget_bytes=1 << 31)
    errors, seconds, positions = [], 0.0, scan.positions
    for options in ({}, fitted):
        began = time.perf_counter()
        found = refine(
            patterns,
            ScanModel(scan.probe, scan.positions),
            start,
            RefineOptions(passes, schedule=rpie_schedule(passes), **options),
        )
        seconds, positions = time.perf_counter() - began, found.model.positions
        errors.append(error(found.object, box, scan))
    off, after = (beside_shift(where - truth) for where in (scan.positions, positions))
    return {"held": errors[0], "fitted": errors[1], "off_px": off, "after_px": after, "seconds": seconds}


def error(obj: ComplexArray, frame: Frame, scan: ScanDataset) -> float:
    """|G - R| / |G| inside the box of positions, registered, without ramp and factor."""
    truth = scan.object_guess
    assert truth is not None
    whole = np.ones_like(truth)
    Frame(truth.shape).paste(whole, obj, frame)
    return float(score(align(truth, whole, scan_box(scan.positions, truth.shape)))["nrmse"])


def beside_shift(moves: FloatArray) -> float:
    """Root mean square of moves less what a shift of all does, pixels."""
    moves = moves - moves.mean(axis=0)
    return float(np.sqrt((moves**2).sum(axis=1).mean()))


if __name__ == "__main__":
    main()
