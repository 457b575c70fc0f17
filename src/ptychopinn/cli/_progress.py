"""Progress of long work."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from ptychopinn.cli._console import Console
from ptychopinn.cli._output import NoteStream, is_terminal
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.progress import figures_text, terminal_bars

PLAIN_SECONDS = 10.0


@contextmanager
def progress_monitor(console: Console) -> Iterator[Monitor]:
    """A `Monitor` that shows progress bars, or plain lines when stderr is no terminal, or nothing when quiet."""
    with contextlib.ExitStack() as stack:
        show: Callable[[Progress], None] | None = None
        if not console.quiet:
            stream = cast(TextIO, NoteStream(sys.stderr))
            show = stack.enter_context(terminal_bars(stream)) if is_terminal(sys.stderr) else PlainProgress(console.say)
        monitor = Monitor(show)
        stack.enter_context(console.stop.cancelling(monitor))
        yield monitor


class PlainProgress:
    """Progress as occasional lines, for logs of batch systems; ``clock`` gives monotonic seconds."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._next: dict[str, float] = {}

    def __call__(self, event: Progress) -> None:
        """Print the event if it ends its stage, or if the stage's last line is some seconds old."""
        now = self._clock()
        due = self._next.setdefault(event.stage, now + PLAIN_SECONDS)
        if now >= due or (event.total and event.done >= event.total):
            self._next[event.stage] = now + PLAIN_SECONDS
            count = f"{event.done}/{event.total}" if event.total else str(event.done)
            self._say(f"{event.stage} {count}{figures_text(event.figures)}")
