"""The command line: ``ptychopinn COMMAND``, one small module a command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ptychopinn.cli._output import write_note
from ptychopinn.errors import PluginError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with some arguments, by default ``sys.argv[1:]``, and return the exit code."""
    try:
        from ptychopinn.cli._app import main as run
    except KeyboardInterrupt:  # the imports take a moment, in which nothing else handles it
        print("Interrupted.", file=sys.stderr)
        return 130
    except ImportError as error:  # of a package that everything needs
        if "--debug" in sys.argv:
            raise
        write_note(sys.stderr, f"ptychopinn: error: {PluginError.of_import(error)}")
        return PluginError.exit_code
    return run(argv)


__all__ = ["main"]
