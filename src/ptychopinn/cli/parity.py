"""``ptychopinn parity MODEL [MODEL] --data SCAN -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_json, add_output
from ptychopinn.cli._progress import progress_monitor
from ptychopinn.cli._settings import load_settings
from ptychopinn.config.execution import Accelerator
from ptychopinn.config.reading import ReadOptions
from ptychopinn.errors import PtychoPinnError, UsageError

_DEVICES = f"{', '.join(Accelerator)} or cuda:K"


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.usage = "%(prog)s MODEL [MODEL] --data SCAN.npz -o OUT"
    parser.add_argument("models", nargs="+", metavar="MODEL", help="A run directory or model archive, or two.")
    parser.add_argument("--data", required=True, metavar="FILE", help="The scan; its middle patterns are the batch.")
    parser.add_argument(
        "--backends",
        nargs=2,
        metavar="BACKEND",
        default=(),
        help="What to compute with (default: what wrote the models).",
    )
    parser.add_argument("--patterns", type=int, default=8, metavar="INT", help="Patterns in the batch (default: 8).")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, metavar="FLOAT", help="Relative difference that passes for rounding."
    )
    parser.add_argument("--accelerator", metavar="DEVICE", help=f"Device of both sides: {_DEVICES}.")
    parser.add_argument(
        "--devices", metavar="DEVICE,DEVICE", type=_words, default=(), help="One device for each side: cpu,cuda."
    )
    add_output(parser, "The directory to make.")
    add_flags(parser, "reading", ReadOptions)
    add_json(parser)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def run(args: argparse.Namespace, console: Console) -> int:
    """Compare, and print where they differ first."""
    from ptychopinn import parity

    if args.devices and args.accelerator is not None:
        raise UsageError("--accelerator and --devices were given.", "Give one of them.")
    with progress_monitor(console) as monitor:
        result = parity.parity_run(
            args.data,
            args.models,
            args.output,
            backends=args.backends,
            devices=args.devices,
            patterns=args.patterns,
            tolerance=args.tolerance,
            options={} if args.accelerator is None else {"accelerator": args.accelerator},
            reading=load_settings(args).reading,
            overwrite=args.overwrite,
            monitor=monitor,
        )
    if args.json:
        found = {stage: dict(values) for stage, values in result.differences.items()}
        console.json({"folder": str(result.folder), "first_difference": result.first, "differences": found})
    else:
        for stage, values in result.differences.items():
            text = values.get("reason") or f"{values['relative']:.3e}"
            console.result(f"{stage:<12}{text}")
        console.result(f"first difference: {result.first or 'none'}")
    return 0 if result.first is None else PtychoPinnError.exit_code
