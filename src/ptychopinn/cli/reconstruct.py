"""``ptychopinn reconstruct SCAN -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_config, add_json, add_resume
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._settings import add_backend_flags, load_settings
from ptychopinn.cli._summary import add_strict, show_run
from ptychopinn.config.automatic import AutomaticConfig
from ptychopinn.config.tiles import TilesConfig
from ptychopinn.errors import UsageError


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.usage = "%(prog)s SCAN -o OUT [FLAGS]"
    parser.add_argument("data", metavar="SCAN", help="The scan file.")
    parser.offer_long_help()
    parser.add_argument("-o", "--output", required=True, metavar="PATH", help="The directory to make.")
    add_resume(parser, "reconstruction", resume="Go on with a scan in tiles that was interrupted.")
    parser.add_argument(
        "--model",
        default="pretrained",
        metavar="MODEL",
        help="What gives the start: pretrained (the installed model that fits the scan, if there is one), the run "
        "directory of a training, a model archive, or none (default: pretrained).",
    )
    parser.add_argument("--backend", help="The framework to compute with (default: the one that wrote the model).")
    add_config(parser)
    add_json(parser)
    add_strict(parser)
    add_flags(parser, "automatic", AutomaticConfig, training=False)
    add_flags(parser, "tiles", TilesConfig)
    add_backend_flags(parser, arguments, training=False, needed=False)


def run(args: argparse.Namespace, console: Console) -> int:
    """Read, decide, reconstruct, write."""
    from ptychopinn import tiled, workflows

    settings = load_settings(args, spec=args.spec, training=False)
    if settings.tiles.tiles is not None:
        with progress_monitor(console) as monitor:
            result = tiled.tiled_run(
                args.data,
                args.output,
                settings,
                model=args.model,
                resume=args.resume,
                overwrite=args.overwrite,
                monitor=monitor,
            )
        return show_run(result, monitor, console, as_json=args.json, strict=args.strict)
    if args.resume:
        raise UsageError("Only a scan in tiles can be resumed.", "Use --overwrite, or add --tiles.")
    with progress_monitor(console) as monitor:
        result = workflows.reconstruct_run(
            args.data,
            args.output,
            model=args.model,
            settings=settings,
            overwrite=args.overwrite,
            monitor=monitor,
        )
    return show_run(result, monitor, console, as_json=args.json, strict=args.strict)
