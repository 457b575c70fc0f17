"""Progress of long work, and Ctrl-C: the first asks the work to stop and keep what it has, the second ends it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType

from ptychopinn.cli._console import Console
from ptychopinn.monitor import Monitor, Progress

PLAIN_SECONDS = 10.0


@contextmanager
def progress_monitor(console: Console) -> Iterator[Monitor]:
    """A `Monitor` that shows progress bars, or plain lines when stderr is no terminal, or nothing when quiet."""
    with ExitStack() as stack:
        show: Callable[[Progress], None] | None = PlainProgress(console.say)
        if console.quiet:
            show = None
        elif sys.stderr.isatty():
            show = stack.enter_context(_bars())
        monitor = Monitor(show)
        with interruptible(monitor, console):
            yield monitor


@contextmanager
def interruptible(monitor: Monitor, console: Console) -> Iterator[None]:
    """Let Ctrl-C cancel ``monitor``, and a second one raise KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread has signal handlers; its owner decides there
        return
    process = os.getpid()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a worker forked from here: its parent sees to the end of it
            return
        if monitor.cancelled:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        monitor.cancel()
        console.say("Stopping after this step and keeping what is there; press Ctrl-C again to end at once.")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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
    with Bars(*columns, console=RichConsole(stderr=True)) as bars:
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
