"""What the command line prints: results on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging import LogRecord
from typing import Any

from ptychopinn.atomic import nan_to_none
from ptychopinn.cli._output import NoteStream, discard, write_line, write_note
from ptychopinn.cli._signals import StopSignals
from ptychopinn.errors import PtychoPinnError, ResourceError

_LOGGER = "ptychopinn"


@dataclass(frozen=True)
class Console:
    """How much to print, and the signals to stop.

    A note that cannot be written (a full disk, a closed pipe, no terminal) is dropped, because the work matters more.
    """

    quiet: bool = False
    debug: bool = False
    stop: StopSignals = field(default_factory=StopSignals)
    _shown: set[str] = field(default_factory=set)  # warnings of the log

    def say(self, text: str) -> None:
        """A note on stderr, unless quiet."""
        if not self.quiet:
            write_note(sys.stderr, text)

    def warn(self, text: str) -> None:
        """A warning on stderr, also when quiet, unless the log has shown it."""
        if text not in self._shown:
            write_note(sys.stderr, f"ptychopinn: warning: {text}")

    def result(self, text: str) -> None:
        """A line of the result on stdout."""
        _print(text)

    def json(self, value: Any) -> None:
        """The result as JSON on stdout; figures that are not finite become null."""
        _print(json.dumps(nan_to_none(value), indent=2, allow_nan=False))

    def error(self, error: PtychoPinnError) -> None:
        """One paragraph on stderr."""
        write_note(sys.stderr, f"ptychopinn: error: {' '.join(str(error).split())}")

    def print_traceback(self) -> None:
        """The traceback of the exception that is being handled, on stderr."""
        write_note(sys.stderr, traceback.format_exc().rstrip())

    def finish(self, code: int) -> int:
        """Write what is left of the output, and return the exit code: the given one, if that was possible."""
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except (OSError, ValueError) as error:
            return self.give_up_output(error)
        return code

    def give_up_output(self, error: Exception) -> int:
        """Give up standard output after an error, and return the exit code; a reader that went away is no error."""
        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return 1
        failure = ResourceError(f"The result cannot be printed: {error}.", "Files that were written are complete.")
        self.error(failure)
        return failure.exit_code

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Show the log of ``ptychopinn``: warnings, all of it with debug."""
        handler = logging.StreamHandler(NoteStream(sys.stderr))
        handler.setLevel(logging.DEBUG if self.debug else logging.ERROR if self.quiet else logging.WARNING)
        handler.setFormatter(logging.Formatter("ptychopinn: %(kind)s: %(message)s"))
        handler.addFilter(self._note)
        logger = logging.getLogger(_LOGGER)
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if self.debug else logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)

    def _note(self, record: LogRecord) -> bool:
        """Name the kind of a line of the log as errors and warnings are named, and remember it."""
        record.kind = record.levelname.lower()
        self._shown.add(record.getMessage())
        return True


class OutputError(Exception):
    """Standard output cannot be written."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _print(text: str) -> None:
    try:
        write_line(sys.stdout, text)
    except (OSError, ValueError) as error:
        raise OutputError(error) from error
