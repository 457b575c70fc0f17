"""``ptychopinn evaluate OUT/reconstruction.h5 --reference REF``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_json, add_output
from ptychopinn.cli._settings import load_settings
from ptychopinn.cli._summary import table
from ptychopinn.config.reading import ReadOptions


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "product", metavar="RECONSTRUCTION", help="A run directory, a reconstruction.h5, or another Ptychodus product."
    )
    parser.add_argument(
        "--reference",
        required=True,
        metavar="FILE",
        help="The trusted object: an NPZ file, product or run directory.",
    )
    parser.add_argument("--scan", metavar="FILE", help="The scan; its positions bound what is compared.")
    add_flags(parser, "reading", ReadOptions)
    add_output(parser, "Also write the scores and a picture there, in this directory.", required=False)
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Score, print."""
    from ptychopinn import workflows

    scores = workflows.evaluate_run(
        args.product,
        args.reference,
        scan_path=args.scan,
        reading=load_settings(args).reading,
        output=args.output,
        overwrite=args.overwrite,
    )
    if args.json:
        console.json(scores.record)
    else:
        for line in table({**scores, **scores.missing}):
            console.result(line)
    return 0
