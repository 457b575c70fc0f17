"""``ptychopinn pretrain -o RUN``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._parser import Parser, add_json, add_resume
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._settings import add_backend_flags, load_settings
from ptychopinn.cli._summary import show_run


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.add_argument("-o", "--output", required=True, metavar="RUN", help="The run directory to make.")
    parser.add_argument("--size", type=int, choices=(64, 128, 256), default=64, help="N of the patterns (default: 64).")
    parser.add_argument(
        "--max-time", dest="seconds", type=float, default=600.0, metavar="SECONDS", help="Of training (default: 600)."
    )
    parser.add_argument("--seed", type=int, default=2026, help="Of objects, probes and weights (default: 2026).")
    parser.add_argument(
        "--from",
        dest="start",
        metavar="MODEL",
        help="Start from the weights of an installed model, a run or an archive, as far as they fit; its N may differ.",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="PATTERNS",
        help="Patterns in a step (default: what suits a card; on a CPU an eighth of that learns faster).",
    )
    parser.add_argument("--backend", help="The framework to train with (default: the first installed).")
    add_resume(parser, "run", resume="Continue the training in this directory, or begin it.")
    add_json(parser)
    add_backend_flags(parser, arguments, reads=False)


def run(args: argparse.Namespace, console: Console) -> int:
    """Train, and write scores on simulated scans into the archive."""
    from ptychopinn import workflows

    settings = load_settings(args, spec=args.spec)
    with progress_monitor(console) as monitor:
        if workflows.follow_training(settings.run_settings(), monitor):
            return 0
        result = workflows.pretrain_run(
            args.output,
            args.size,
            seconds=args.seconds,
            seed=args.seed,
            start=args.start,
            batch_size=args.batch_size,
            backend=None if args.spec is None else args.spec.name,
            execution=settings.execution,
            resume=args.resume,
            overwrite=args.overwrite,
            monitor=monitor,
        )
    return show_run(result, monitor, console, as_json=args.json)
