"""Signals that ask a command to stop: Ctrl-C, and what schedulers and terminals send before they kill.

The first one lets the work finish its step and keep what it has. The second gives that step up. The third ends the
process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ptychopinn.errors import Cancelled
from ptychopinn.monitor import Monitor

# scancel, docker stop; a lost terminal; sbatch --signal; a limit of processor time; Ctrl-Break on Windows
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
_REPEATED = "SIGXCPU"  # the kernel sends it once a second from then on
_AGAIN_S = 0.01
_SIGNALS = tuple(signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__)


class StopSignals:
    """The signals that a command received."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._monitor: Monitor | None = None
        self._say: Callable[[str], None] = lambda text: None
        self._process = os.getpid()
        self._is_again = False  # whether the next signal is the last one once more

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
        hook, sys.unraisablehook = sys.unraisablehook, self._interrupt_again
        try:
            yield
        finally:
            sys.unraisablehook = hook
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
        if self._is_again:
            self._is_again = False
            raise KeyboardInterrupt
        if self._received and number == getattr(signal, _REPEATED, None):
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

    def _interrupt_again(self, lost: sys.UnraisableHookArgs) -> None:
        """Interrupt again where Python dropped the exception: in destructors and callbacks of weak references."""
        if not issubclass(lost.exc_type, KeyboardInterrupt) or not self._received:
            sys.__unraisablehook__(lost)
            return
        self._is_again = True
        # A little later: from here it would be dropped once more.
        threading.Timer(_AGAIN_S, signal.raise_signal, args=(self._received[-1],)).start()
