"""``ptychopinn doctor``."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence

from ptychopinn.cli._console import Console
from ptychopinn.cli._parser import Parser, add_json

_NAME_WIDTH = 24
_MAX_WIDTH = 120


def configure(parser: Parser, arguments: Sequence[str]) -> None:
    """Add the command's flags."""
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Print one page about this machine, to paste into a bug report."""
    from ptychopinn.machine_check import check_machine

    sections = check_machine()
    if args.json:
        console.json(sections)
        return 0
    width = min(shutil.get_terminal_size((_MAX_WIDTH, 24)).columns, _MAX_WIDTH)
    for title, facts in sections.items():
        console.result(title)
        for name, fact in facts.items():
            lines = textwrap.wrap(fact, max(width - _NAME_WIDTH - 2, 40)) or [""]
            console.result(f"  {name:<{_NAME_WIDTH}}{lines[0]}")
            for line in lines[1:]:
                console.result(f"  {'':<{_NAME_WIDTH}}{line}")
    return 0
