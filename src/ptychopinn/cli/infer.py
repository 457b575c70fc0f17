"""``ptychopinn infer RUN DATA -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._inference import add_inference
from ptychopinn.cli._parser import Parser
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._settings import load_settings
from ptychopinn.cli._summary import show_run


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.usage = "%(prog)s RUN DATA -o OUT [FLAGS]"
    parser.add_argument("model", metavar="RUN", help="The run directory of a training, or a model archive.")
    parser.add_argument("data", metavar="DATA", help="The scan, an NPZ or HDF5 file.")
    add_inference(parser, arguments)


def run(args: argparse.Namespace, console: Console) -> int:
    """Load the model, predict, stitch, write."""
    from ptychopinn import workflows

    settings = load_settings(args, spec=args.spec, training=False)
    with progress_monitor(console) as monitor:
        result = workflows.infer_run(
            args.model, args.data, args.output, settings.run_settings(), overwrite=args.overwrite, monitor=monitor
        )
    show_run(result, console, as_json=args.json)
    return console.stop.exit_code if monitor.cancelled else 0
