"""``ptychopinn evaluate OUT/reconstruction.h5 --reference REF``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._parser import Parser, add_json


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.add_argument("product", metavar="RECONSTRUCTION", help="A reconstruction.h5, or another Ptychodus product.")
    parser.add_argument(
        "--reference", required=True, metavar="FILE", help="The trusted object: an NPZ file or a product."
    )
    parser.add_argument("--scan", metavar="FILE", help="The scan; its positions bound what is compared.")
    parser.add_argument("-o", "--output", metavar="DIR", help="Also write the scores and pictures there.")
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Score, print."""
    from ptychopinn import workflows

    scores = workflows.evaluate_run(args.product, args.reference, scan_path=args.scan, output=args.output)
    if args.json:
        console.json(scores)
    else:
        for line in score_lines(scores):
            console.result(line)
    return 0


def score_lines(scores: Mapping[str, object]) -> list[str]:
    """One aligned line a score."""
    width = max((len(name) for name in scores), default=0)
    return [f"{name:<{width}}  {_plain(value)}" for name, value in scores.items()]


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)
