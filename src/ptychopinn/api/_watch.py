"""Progress and interrupts of work that Python waits for."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ptychopinn.errors import Cancelled
from ptychopinn.monitor import Monitor
from ptychopinn.progress import shown_progress

_log = logging.getLogger(__name__)


@contextmanager
def watched(given: Monitor | None) -> Iterator[Monitor]:
    """The given monitor, or one that shows progress and that an interrupt cancels.

    Without a given monitor, the first interrupt (Ctrl-C, or the stop button of a notebook) cancels the work, which
    returns what it has; the second one raises. A program that handles interrupts itself keeps its handler.

    Raises
    ------
    KeyboardInterrupt
        If the work was interrupted before it had a result.
    """
    if given is not None:
        yield given
        return
    with shown_progress() as show:
        monitor = Monitor(show)
        with _interrupts_cancel(monitor):
            try:
                yield monitor
            except Cancelled as error:
                if not monitor.cancelled:
                    raise
                raise KeyboardInterrupt(str(error)) from error


@contextmanager
def _interrupts_cancel(monitor: Monitor) -> Iterator[None]:
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or not default:
        yield
        return
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a worker forked from here: its parent sees to the end of it
            return
        if monitor.cancelled:
            raise KeyboardInterrupt
        monitor.cancel()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if monitor.cancelled:
            _log.warning("It was interrupted: what there is so far is returned.")
