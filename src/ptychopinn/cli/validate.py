"""``ptychopinn validate FILE...``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from ptychopinn.cli._console import Console
from ptychopinn.cli._flags import add_flags
from ptychopinn.cli._parser import Parser, add_json
from ptychopinn.cli._settings import load_settings
from ptychopinn.config.reading import ReadOptions
from ptychopinn.errors import DataError


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="Scans: NPZ, HDF5, CXI, NeXus or any format that has a reader."
    )
    add_flags(parser, "reading", ReadOptions)
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Check each file; the exit code is that of refused input if one of them would be refused."""
    from ptychopinn.data.checks import check_scan
    from ptychopinn.data.diagnostics import Severity

    reading = load_settings(args).reading
    found = {file: check_scan(file, reading) for file in args.files}
    bad = {file for file, problems in found.items() if any(p.severity is Severity.ERROR for p in problems)}
    if args.json:
        console.json(
            [
                {"file": file, "valid": file not in bad, "problems": [asdict(p) for p in problems]}
                for file, problems in found.items()
            ]
        )
    else:
        for file, problems in found.items():
            for problem in problems:
                console.result(f"{file}: {problem}")
            console.result(f"{file}: {'refused' if file in bad else 'valid'}")
    return DataError.exit_code if bad else 0
