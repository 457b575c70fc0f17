"""The command line: ``ptychopinn COMMAND``, one small module a command."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with some arguments, by default ``sys.argv[1:]``, and return the exit code."""
    try:
        from ptychopinn.cli._app import main as run
    except KeyboardInterrupt:  # the imports take a moment, in which nothing else handles it
        print("Interrupted.", file=sys.stderr)
        return 130
    return run(argv)


__all__ = ["main"]
