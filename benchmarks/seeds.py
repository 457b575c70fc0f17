"""Whether any seed's training collapses: short trainings of one backend with many seeds, in one table.

    python benchmarks/seeds.py SCAN.npz [--seeds 20] [--seconds 15] [--backend torch] [--json FILE]

A collapsed training gives a flat object while its loss looks finite. Every row has the object's deviation inside the
scan box (flatness; a collapse is below its limit), the forward residual, and, where the scan knows its object, the
correlation of the phases. One process, one seed after another; the last lines are the extremes and the median.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

from ptychopinn.config import InferConfig, ModelConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.metrics.quality import FLATNESS_LIMIT
from ptychopinn.plugins import discover
from ptychopinn.reconstruction import reconstruct


def trial(backend: str, scan: ScanDataset, seed: int, seconds: float, model: ModelConfig) -> dict[str, float]:
    """Train and reconstruct once."""
    spec = discover().get(backend)
    made = spec.load_class()(model, spec.options())
    result = made.train(scan, TrainConfig(seed=seed, max_time=seconds))
    found = reconstruct(made, scan, InferConfig(refine=0))
    row = {
        "seed": seed,
        "last loss": result.history["loss"][-1],
        "flatness": found.flatness,
        "residual": found.residual,
        "phase_corr": math.nan,
    }
    if scan.object_guess is not None and np.ptp(np.abs(scan.object_guess)) > 0:
        aligned = align(scan.object_guess, found.object, scan_box(scan.positions, scan.object_guess.shape))
        row["phase_corr"] = float(score(aligned)["phase_corr"])
    return row


def line(values: list[object]) -> str:
    """A row of the table."""
    return " ".join(f"{v:>12.4f}" if isinstance(v, float) else f"{v!s:>12}" for v in values)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=15.0, help="Of each training.")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--architecture", default="fast")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    scan = read_scan(arguments.scan)
    model = ModelConfig(N=scan.N, architecture=arguments.architecture)
    rows = []
    for seed in range(arguments.seeds):
        rows.append(trial(arguments.backend, scan, seed, arguments.seconds, model))
        if seed == 0:
            print(line(list(rows[0])))
        print(line(list(rows[-1].values())), flush=True)
    for name, of in (("worst", np.min), ("median", np.median), ("best", np.max)):
        flat, corr = (float(of([row[key] for row in rows])) for key in ("flatness", "phase_corr"))
        print(f"{name}: flatness {flat:.4f}, phase_corr {corr:.4f}")
    collapsed = [row["seed"] for row in rows if row["flatness"] < FLATNESS_LIMIT]
    print(
        f"collapsed: {len(collapsed)} of {len(rows)} (flatness below {FLATNESS_LIMIT}){': ' if collapsed else ''}",
        *collapsed,
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
