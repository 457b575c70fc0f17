"""``ptychopinn demo``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._parser import Parser, add_json, add_output
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._summary import show_run
from ptychopinn.plugins import discover


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    add_output(parser, "The directory to make (default: ptychopinn-demo).", required=False, default="ptychopinn-demo")
    parser.add_argument("--backend", help="The deep-learning framework: see 'ptychopinn plugins'.")
    parser.add_argument("--max-time", type=float, metavar="SECONDS", help="Seconds of training.")
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Run every part once, on a simulated pair of scans."""
    from ptychopinn import workflows

    registry = discover()
    spec = registry.get(args.backend) if args.backend is not None else registry.default()
    more = {} if args.max_time is None else {"max_time": args.max_time}
    with progress_monitor(console) as monitor:
        result = workflows.demo_run(args.output, backend=spec.name, overwrite=args.overwrite, monitor=monitor, **more)
    return show_run(result, monitor, console, as_json=args.json)
