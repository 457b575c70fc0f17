"""``ptychopinn stream RUN SOURCE -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_config, add_json, add_output
from ptychopinn.cli._progress import watched
from ptychopinn.cli._settings import choose_backend, gather
from ptychopinn.cli._summary import show_run
from ptychopinn.config import ExecutionOptions, InferConfig
from ptychopinn.data.dataset import Measurement
from ptychopinn.errors import Cancelled


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags; those of execution are the backend's own."""
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
    parser.add_argument("--backend", help="The framework to compute with (default: the one that wrote the model).")
    parser.add_argument(
        "--measurement",
        choices=[str(m) for m in Measurement],
        help="What the numbers of the patterns are, where the file does not say.",
    )
    add_config(parser)
    add_json(parser)
    add_output(parser, "The directory to make.")
    add_flags(parser, "infer", InferConfig, "reconstruction", training=False)
    spec = choose_backend(arguments)
    options = spec.options if spec is not None else ExecutionOptions
    add_flags(parser, "execution", options, "execution", training=False)
    parser.set_defaults(spec=spec)


def run(args: argparse.Namespace, console: Console) -> int:
    """Load the model, follow the scan, write."""
    from ptychopinn import workflows

    sections = {"infer": InferConfig, "execution": args.spec.options}
    settings = gather(args, sections, training=False)
    with watched(console) as monitor:
        result = workflows.stream_run(
            args.model,
            args.source,
            args.output,
            infer=settings.given["infer"],
            options=settings.given["execution"],
            backend=args.spec.name if "backend" in settings.words else None,
            measurement=settings.measurement,
            bind=args.bind,
            interval_s=args.interval,
            timeout_s=args.timeout,
            overwrite=args.overwrite,
            monitor=monitor,
        )
    show_run(result, console, as_json=args.json)
    return Cancelled.exit_code if monitor.cancelled else 0
