"""``ptychopinn convert SOURCE -o TARGET``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_output
from ptychopinn.cli._settings import load_settings
from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.config.reading import ReadOptions


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="A scan, a file of any format that is read; several are joined."
    )
    add_output(parser, "The canonical NPZ file to write; CXI if it ends with .cxi.")
    add_flags(parser, "reading", ReadOptions)
    add_flags(parser, "conversion", ConversionOptions)
    parser.add_argument("--compress", action="store_true", help="Smaller, but read into memory and not mapped.")


def run(args: argparse.Namespace, console: Console) -> int:
    """Read, change, check, write."""
    from ptychopinn.data.convert import convert_scan

    settings = load_settings(args)
    data = convert_scan(
        args.sources,
        args.output,
        settings.reading,
        settings.conversion,
        compress=args.compress,
        overwrite=args.overwrite,
    )
    console.result(f"{args.output}: {len(data)} patterns of {data.N} x {data.N}, read as {data.measurement}")
    return 0
