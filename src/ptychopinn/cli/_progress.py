"""Progress of long work."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO, cast

from ptychopinn.cli._console import Console
from ptychopinn.cli._output import NoteStream, is_terminal
from ptychopinn.monitor import Monitor, Progress

PLAIN_SECONDS = 10.0


@contextmanager
def progress_monitor(console: Console) -> Iterator[Monitor]:
    """A `Monitor` that shows progress bars, or plain lines when stderr is no terminal, or nothing when quiet."""
    with contextlib.ExitStack() as stack:
        show: Callable[[Progress], None] | None = None
        if not console.quiet:
            show = stack.enter_context(_bars()) if is_terminal(sys.stderr) else PlainProgress(console.say)
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


def figures_text(figures: Mapping[str, float]) -> str:
    """Figures as text, a blank before each."""
    return "".join(f"  {name} {value:.4g}" for name, value in figures.items())


@contextmanager
def _bars() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Bars(*columns, console=RichConsole(file=cast(TextIO, NoteStream(sys.stderr)))) as bars:
        tasks: dict[str, object] = {}

        def show(event: Progress) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bars.add_task(event.stage, total=event.total or None, figures="")
            bars.update(
                tasks[event.stage],  # type: ignore[arg-type]
                completed=event.done,
                total=event.total or None,
                figures=figures_text(event.figures).strip(),
            )

        yield show
