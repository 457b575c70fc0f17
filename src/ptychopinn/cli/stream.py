"""``ptychopinn stream RUN SOURCE -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._inference import add_inference
from ptychopinn.cli._parser import Parser
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._settings import load_settings
from ptychopinn.cli._summary import show_run
from ptychopinn.config.infer import StreamConfig


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.usage = "%(prog)s RUN SOURCE -o OUT [FLAGS]"
    parser.add_argument("model", metavar="RUN", help="The run directory of a training, or a model archive.")
    parser.add_argument("source", metavar="SOURCE", help="An HDF5 file that grows, or tcp://HOST:PORT.")
    parser.add_argument("--bind", action="store_true", help="Wait at the address for producers, do not connect to it.")
    parser.add_argument(
        "--interval", type=float, default=10.0, metavar="FLOAT", help="Seconds between two pictures (default: 10)."
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="FLOAT",
        help="Seconds of silence after which the producer is taken for dead (default: 60).",
    )
    of_whole_scans = ("predict_overlap", "uncertainty", "nphotons", "fftshift")
    add_inference(parser, arguments, StreamConfig, without=of_whole_scans)


def run(args: argparse.Namespace, console: Console) -> int:
    """Load the model, follow the scan, write."""
    from ptychopinn import workflows

    settings = load_settings(args, spec=args.spec, training=False)
    with progress_monitor(console) as monitor:
        result = workflows.stream_run(
            args.model,
            args.source,
            args.output,
            settings.run_settings(),
            bind=args.bind,
            interval_s=args.interval,
            timeout_s=args.timeout,
            monitor=monitor,
            overwrite=args.overwrite,
        )
    return show_run(result, monitor, console, as_json=args.json)
