"""``ptychopinn infer RUN DATA -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_config, add_json, add_output, add_reading
from ptychopinn.cli._progress import watched
from ptychopinn.cli._settings import choose_backend, gather
from ptychopinn.cli._summary import show_run
from ptychopinn.config import ExecutionOptions, InferConfig
from ptychopinn.errors import Cancelled


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags; those of execution are the backend's own."""
    parser.usage = "%(prog)s RUN DATA.npz -o OUT [FLAGS]"
    parser.add_argument("model", metavar="RUN", help="The run directory of a training, or a model archive.")
    parser.add_argument("data", metavar="DATA", help="The scan, an NPZ file.")
    parser.add_argument("--backend", help="The framework to compute with (default: the one that wrote the model).")
    add_reading(parser)
    add_config(parser)
    add_json(parser)
    add_output(parser, "The directory to make.")
    add_flags(parser, "infer", InferConfig, "reconstruction", training=False)
    spec = choose_backend(arguments)
    options = spec.options if spec is not None else ExecutionOptions
    add_flags(parser, "execution", options, "execution", training=False)
    parser.set_defaults(spec=spec)


def run(args: argparse.Namespace, console: Console) -> int:
    """Load the model, predict, stitch, write."""
    from ptychopinn import workflows

    sections = {"infer": InferConfig, "execution": args.spec.options}
    settings = gather(args, sections, training=False)
    with watched(console) as monitor:
        result = workflows.infer_run(
            args.model,
            args.data,
            args.output,
            infer=settings.given["infer"],
            options=settings.given["execution"],
            backend=args.spec.name if "backend" in settings.words else None,
            measurement=settings.measurement,
            nphotons=args.nphotons,
            overwrite=args.overwrite,
            monitor=monitor,
        )
    show_run(result, console, as_json=args.json)
    return Cancelled.exit_code if monitor.cancelled else 0
