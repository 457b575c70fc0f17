"""A dense test split after a train split, inside a limit of memory: 5,088 groups of gridsize 2 at N = 128.

    python benchmarks/dense.py FOLDER [--legs torch-pinn rpie] [--memory-mb 2048]

Simulates both scans (1.7 GB in FOLDER, kept), compares the candidates in processes of their own, and prints the peak
of the anonymous memory of each candidate and scan, and of everything together, as the kernel counts it. Ends with 1
unless every row of the table is filled and the limit held.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ptychopinn.comparison import Status, read_table
from ptychopinn.jobs import JobError, JobLimits, Task, run_job

GROUPS, GRIDSIZE = 5088, 2


def main() -> int:
    """Run it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--legs", nargs="+", default=["torch-pinn", "rpie"])
    parser.add_argument("--memory-mb", type=int, default=2048, help="Limit of all processes together.")
    parser.add_argument("--n-groups", type=int, default=GROUPS, help="Groups that the networks train on.")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    scans = {"train": ("72", "71", "1"), "test": ("143", "143", "2")}  # the middle 5,088 x 4 patterns are tested on
    for name, (rows, cols, seed) in scans.items():
        path = folder / f"{name}.npz"
        size = ("--N", "128", "--rows", rows, "--cols", cols, "--seed", seed)
        if not path.is_file() and (code := run_job(cli("simulate", "-o", path, *size, "--quiet"), folder)):
            return int(code)
    peak = 0.0

    def keep(mib: float) -> None:
        nonlocal peak
        peak = max(peak, mib)

    flags = ("--nepochs", 1, "--n-groups", arguments.n_groups, "--gridsize", GRIDSIZE, "--n-test-groups", GROUPS)
    more = (
        "--refine",
        0,
        "--solver-passes",
        2,
        "--probe-refinement",
        1,
        "--no-split-frc",
        "--memory-mb",
        arguments.memory_mb,
    )
    pair = ("--train", folder / "train.npz", "--test", folder / "test.npz", "--legs", *arguments.legs)
    command = cli("compare", *pair, "-o", folder / "out", "--resume", *flags, *more)
    ended = ""
    try:
        code = run_job(command, folder, limits=JobLimits(arguments.memory_mb), on_memory=keep)
    except JobError as error:
        ended, code = str(error), 1
    rows = read_table(folder / "out" / "comparison_metrics.csv") if not code else []
    for row in rows:
        if row.metric in ("patterns", "peak_anonymous_mib", "patterns_per_second"):
            print(f"{row.candidate} {row.scan} {row.metric} {row.value:.0f}")
    empty = [row for row in rows if row.status is not Status.OK and row.metric != "frc50_split"]
    print(f"rows {len(rows)}, without a value {len(empty)}; peak of all processes {peak:.0f} MiB {ended}")
    return 1 if empty or not rows else 0


def cli(*arguments: object) -> Task:
    """The command line of ptychopinn."""
    return Task("ptychopinn.cli:main", {"argv": list(map(str, arguments))})


if __name__ == "__main__":
    sys.exit(main())
