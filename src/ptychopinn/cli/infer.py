"""``ptychopinn infer RUN DATA -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._inference import add_inference
from ptychopinn.cli._parser import Parser
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._settings import load_settings
from ptychopinn.cli._summary import add_strict, show_run


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.usage = "%(prog)s RUN DATA -o OUT [FLAGS]"
    parser.add_argument("model", metavar="RUN", help="The run directory of a training, or a model archive.")
    parser.add_argument("data", metavar="DATA", help="The scan: NPZ, HDF5, CXI, NeXus or any format that has a reader.")
    add_inference(parser, arguments)
    add_strict(parser)
    parser.add_argument(
        "--write", metavar="FORMAT,...", default="", help="Write the product in these formats too: cxi, nexus."
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """Load the model, predict, stitch, write."""
    from ptychopinn import workflows

    formats = [name for name in args.write.split(",") if name.strip()]
    settings = load_settings(args, spec=args.spec, training=False)
    with progress_monitor(console) as monitor:
        result = workflows.infer_run(
            args.model,
            args.data,
            args.output,
            settings.run_settings(),
            overwrite=args.overwrite,
            formats=formats,
            monitor=monitor,
        )
    return show_run(result, monitor, console, as_json=args.json, strict=args.strict)
