"""``ptychopinn study STUDY.yaml -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._parser import Parser, add_json
from ptychopinn.cli._progress import watched
from ptychopinn.cli._settings import load_settings
from ptychopinn.cli._summary import table
from ptychopinn.errors import PtychoPinnError


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.usage = "%(prog)s STUDY.yaml -o OUT"
    parser.add_argument(
        "config",
        metavar="STUDY",
        help="YAML or JSON: the section 'study', and those that the candidates and scans share.",
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="The directory to make.")
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--resume", action="store_true", help="Keep what is done, by content, and go on.")
    there.add_argument("--overwrite", action="store_true", help="Replace the study that is there.")
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the study, print medians."""
    from ptychopinn import comparison

    settings = load_settings(args)
    with watched(console) as monitor:
        result = comparison.study_run(
            settings,
            args.output,
            resume=args.resume,
            overwrite=args.overwrite,
            monitor=monitor,
        )
    for where, reason in result.failed.items():
        console.warn(f"{where} failed: {reason}")
    files = {kind: str(path) for kind, path in result.files.items()}
    if args.json:
        assert settings.study is not None  # else it was refused
        drawn = [m for m in result.medians if f"{m.quantity} {m.metric}" in settings.study.metrics]
        points = [
            {"leg": m.candidate, **vars(m.point), "figure": f"{m.quantity} {m.metric}", "median": m.median}
            for m in drawn
        ]
        console.json({"folder": str(result.folder), "files": files, "medians": points, "failed": dict(result.failed)})
    else:
        for line in table(files):
            console.result(line)
    return PtychoPinnError.exit_code if result.failed else 0
