"""``ptychopinn inspect SCAN``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_json
from ptychopinn.cli._settings import load_settings
from ptychopinn.cli._summary import table
from ptychopinn.config.reading import ReadOptions


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.add_argument("scan", metavar="SCAN", help="A scan, a file of any format that is read.")
    parser.add_argument("-o", "--output", metavar="PICTURE", help="A PNG to write (default: none).")
    add_flags(parser, "reading", ReadOptions)
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Read, try, say what fits best."""
    from ptychopinn import workflows

    found = workflows.inspect_run(args.scan, args.output, load_settings(args).reading)
    if args.json:
        trials = () if found.geometry is None else found.geometry.trials
        console.json(
            {
                "conclusion": found.conclusion,
                "figures": dict(found.figures),
                "findings": [{"code": one.code, "text": one.text} for one in found.findings],
                "flags": [] if found.geometry is None else list(found.geometry.best.flags),
                "tried": [{"change": str(trial.change), "residual": trial.residual} for trial in trials],
                "picture": None if found.picture is None else str(found.picture),
            }
        )
        return 0
    for line in table(found.figures):
        console.result(line)
    console.result(found.conclusion)
    if found.picture is not None:
        console.result(f"picture  {found.picture}")
    return 0
