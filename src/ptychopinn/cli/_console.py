"""What the command line prints: results on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ptychopinn.atomic import nan_to_none
from ptychopinn.errors import PtychoPinnError

_LOGGER = "ptychopinn"


@dataclass(frozen=True)
class Console:
    """How much to print."""

    quiet: bool = False
    debug: bool = False

    def say(self, text: str) -> None:
        """A note on stderr, unless quiet."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A warning on stderr, also when quiet."""
        print(f"ptychopinn: warning: {text}", file=sys.stderr, flush=True)

    def result(self, text: str) -> None:
        """A line of the result on stdout."""
        print(text)

    def json(self, value: Any) -> None:
        """The result as JSON on stdout; figures that are not finite become null."""
        print(json.dumps(nan_to_none(value), indent=2, allow_nan=False))

    def error(self, error: PtychoPinnError) -> None:
        """One paragraph on stderr."""
        print(f"ptychopinn: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Show the log of ``ptychopinn``: warnings, all of it with debug."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.DEBUG if self.debug else logging.ERROR if self.quiet else logging.WARNING)
        handler.setFormatter(logging.Formatter("ptychopinn: %(levelname)s: %(message)s"))
        logger = logging.getLogger(_LOGGER)
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if self.debug else logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
