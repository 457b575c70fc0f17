"""``ptychopinn simulate -o SCAN.npz``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_config, add_output
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._settings import load_settings
from ptychopinn.config import SimulationConfig


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.usage = "%(prog)s -o SCAN.npz [FLAGS]"
    parser.offer_long_help()
    add_output(parser, "The NPZ file to write; it holds the true object, too.")
    add_config(parser)
    add_flags(parser, "simulation", SimulationConfig)


def run(args: argparse.Namespace, console: Console) -> int:
    """Simulate, write."""
    from ptychopinn import workflows

    simulation = load_settings(args).simulation
    with progress_monitor(console) as monitor:
        path = workflows.simulate_run(simulation, args.output, overwrite=args.overwrite, monitor=monitor)
    console.result(str(path))
    return 0
