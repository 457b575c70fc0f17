"""Signals that ask a command to stop: Ctrl-C, and what schedulers and terminals send before they kill.

The first one lets the work finish its step and keep what it has. The second gives that step up. The third ends the
process at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ptychopinn.errors import Cancelled
from ptychopinn.monitor import Monitor

# scancel, docker stop; a lost terminal; sbatch --signal; a limit of processor time; Ctrl-Break on Windows
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
_SIGNALS = tuple(signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__)


class StopSignals:
    """The signals that a command received."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._monitor: Monitor | None = None
        self._say: Callable[[str], None] = lambda text: None
        self._process = os.getpid()

    @property
    def exit_code(self) -> int:
        """Exit code of a command that was stopped: 128 + the signal, 130 without one."""
        return 128 + self._received[0] if self._received else Cancelled.exit_code

    @contextmanager
    def handled(self, say: Callable[[str], None]) -> Iterator[None]:
        """Handle the signals in a block.

        Only the main thread of a process has handlers; in another one the owner of the process decides. A signal that
        is ignored (SIGHUP under nohup) stays ignored, but not Ctrl-C.

        Parameters
        ----------
        say:
            Prints a line.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._say = say
        before = {
            number: signal.signal(number, self._handle)
            for number in _SIGNALS
            if number == signal.SIGINT or signal.getsignal(number) == signal.SIG_DFL
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def cancelling(self, monitor: Monitor) -> Iterator[None]:
        """Let the first signal cancel a monitor; outside of this block it interrupts at once."""
        before, self._monitor = self._monitor, monitor
        try:
            yield
        finally:
            self._monitor = before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker forked from here: its parent sees to the end of it
            return
        self._received.append(number)
        if len(self._received) > 2:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if len(self._received) == 2 or self._monitor is None:
            raise KeyboardInterrupt
        self._monitor.cancel()
        self._say(
            f"{signal.Signals(number).name}: stopping after this step and keeping what is there. A second signal gives "
            "this step up, a third ends at once."
        )
