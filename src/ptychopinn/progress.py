"""Show the progress of long work in a terminal or in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from html import escape
from typing import Any, TextIO

from ptychopinn.monitor import Progress

Show = Callable[[Progress], None]
_NOTEBOOK_SECONDS = 0.2  # between two updates of a notebook's output


def shown_progress() -> AbstractContextManager[Show | None]:
    """What shows progress where the program runs: bars in a notebook or a terminal, None elsewhere."""
    if (display := notebook_display()) is not None:
        return nullcontext(NotebookBars(display))
    if sys.stderr is not None and sys.stderr.isatty():
        return terminal_bars(sys.stderr)
    return nullcontext(None)


def notebook_display() -> Callable[..., Any] | None:
    """IPython's ``display`` in the kernel of a notebook; None elsewhere. It imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if ipython is None or not hasattr(shell, "kernel"):
        return None
    display: Callable[..., Any] = ipython.display.display
    return display


def figures_text(figures: Mapping[str, float]) -> str:
    """Figures as text, a blank before each."""
    return "".join(f"  {name} {value:.4g}" for name, value in figures.items())


class NotebookBars:
    """Progress as one line a stage in the output of a notebook's cell.

    Parameters
    ----------
    display:
        IPython's ``display``.
    clock:
        Gives monotonic seconds.
    """

    def __init__(self, display: Callable[..., Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._display, self._clock = display, clock
        self._stages: dict[str, Progress] = {}
        self._handle: Any = None
        self._next = 0.0

    def __call__(self, event: Progress) -> None:
        """Show an event, unless the output is newer than `_NOTEBOOK_SECONDS` and the stage goes on."""
        self._stages[event.stage] = event
        if self._clock() < self._next and event.done != event.total:
            return
        self._next = self._clock() + _NOTEBOOK_SECONDS
        if self._handle is None:
            self._handle = self._display(self, display_id=True)
        else:
            self._handle.update(self)

    def __repr__(self) -> str:
        return "\n".join(f"{one.stage} {_count(one)}{figures_text(one.figures)}" for one in self._stages.values())

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><td>{escape(one.stage)}</td><td><progress value='{one.done}' max='{one.total or 1}'></progress></td>"
            f"<td>{_count(one)}</td><td>{escape(figures_text(one.figures).strip())}</td></tr>"
            for one in self._stages.values()
        )
        return f"<table>{''.join(rows)}</table>"


def _count(event: Progress) -> str:
    return f"{event.done}/{event.total}" if event.total else str(event.done)


@contextmanager
def terminal_bars(stream: TextIO) -> Iterator[Show]:
    """Progress bars of rich."""
    from rich.console import Console
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
    with Bars(*columns, console=Console(file=stream)) as bars:
        tasks: dict[str, Any] = {}

        def show(event: Progress) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bars.add_task(event.stage, total=event.total or None, figures="")
            bars.update(
                tasks[event.stage],
                completed=event.done,
                total=event.total or None,
                figures=figures_text(event.figures).strip(),
            )

        yield show
