"""``ptychopinn train DATA -o RUN``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags, add_preset
from ptychopinn.cli._parser import Parser, add_config, add_json, add_resume
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._settings import add_backend_flags, load_settings
from ptychopinn.cli._summary import add_strict, show_run
from ptychopinn.config import InferConfig, ModelConfig, TrainConfig


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.usage = "%(prog)s DATA.npz -o RUN [FLAGS]"
    parser.add_argument("data", metavar="DATA", help="The scan: NPZ, HDF5, CXI, NeXus or any format that has a reader.")
    parser.offer_long_help()
    parser.add_argument("-o", "--output", required=True, metavar="RUN", help="The run directory to make.")
    add_resume(parser, "run", resume="Go on with the run that is there, or start it.")
    parser.add_argument("--validation", metavar="FILE", help="Another scan, to judge the training by (default: none).")
    parser.add_argument(
        "--from",
        dest="start",
        metavar="MODEL",
        help="Go on from the network of this run directory or model archive (default: a new network).",
    )
    parser.add_argument(
        "--backend",
        help="The deep-learning framework, see 'ptychopinn plugins' (default: torch, or the only one installed).",
    )
    add_preset(parser)
    add_config(parser)
    add_json(parser)
    add_strict(parser)
    add_flags(parser, "train", TrainConfig)
    add_flags(parser, "model", ModelConfig)
    add_flags(parser, "infer", InferConfig)
    add_backend_flags(parser, arguments)


def run(args: argparse.Namespace, console: Console) -> int:
    """Train, and reconstruct the scan with the result."""
    from ptychopinn import workflows

    settings = load_settings(args, spec=args.spec)
    with progress_monitor(console) as monitor:
        if workflows.follow_training(settings.run_settings(), monitor):
            return 0
        result = workflows.train_run(
            args.data,
            args.output,
            settings.run_settings(),
            validation=args.validation,
            start=args.start,
            resume=args.resume,
            overwrite=args.overwrite,
            monitor=monitor,
        )
    return show_run(result, monitor, console, as_json=args.json, strict=args.strict)
