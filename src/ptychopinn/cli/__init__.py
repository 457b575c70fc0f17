"""The command line: ``ptychopinn COMMAND``, one small module a command."""

from ptychopinn.cli._app import main

__all__ = ["main"]
