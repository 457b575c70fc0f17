"""``ptychopinn convert SOURCE -o TARGET``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_output
from ptychopinn.cli._settings import load_settings
from ptychopinn.config.reading import ReadOptions


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.add_argument("source", metavar="SOURCE", help="A scan, an NPZ or HDF5 file of any form that is read.")
    add_output(parser, "The canonical NPZ file to write.")
    add_flags(parser, "reading", ReadOptions)
    parser.add_argument("--compress", action="store_true", help="Smaller, but read into memory and not mapped.")


def run(args: argparse.Namespace, console: Console) -> int:
    """Read, write."""
    from ptychopinn.data.convert import convert_scan

    reading = load_settings(args).reading
    data = convert_scan(args.source, args.output, reading, compress=args.compress, overwrite=args.overwrite)
    console.result(f"{args.output}: {len(data)} patterns of {data.N} x {data.N}, read as {data.measurement}")
    return 0
