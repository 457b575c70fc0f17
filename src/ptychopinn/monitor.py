"""Progress and cancellation of long work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One progress event.

    ``stage`` names the work ("train", "predict", "stitch", ...); ``done`` of ``total`` steps are
    finished (``total`` 0: unknown); ``figures`` are the newest numbers to show (losses).
    """

    stage: str
    done: int
    total: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)


class Monitor:
    """Receives progress, and can cancel the work, also from another thread.

    ``on_progress`` must be quick, because the work waits for it. It gets one event at a time, whatever the threads.
    """

    def __init__(self, on_progress: Callable[[Progress], None] | None = None) -> None:
        self._on_progress = on_progress
        self._cancelled = threading.Event()
        self._reporting = threading.RLock()

    def report(self, stage: str, done: int, total: int = 0, figures: Mapping[str, float] | None = None) -> None:
        """Report the progress of ``stage``."""
        if self._on_progress is not None:
            with self._reporting:
                self._on_progress(Progress(stage, done, total, dict(figures or {})))

    def cancel(self) -> None:
        """Ask the work to stop at its next step."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether cancellation was requested."""
        return self._cancelled.is_set()


class LinkedMonitor(Monitor):
    """A monitor with progress of its own, which is cancelled when another one is."""

    def __init__(self, other: Monitor, on_progress: Callable[[Progress], None] | None = None) -> None:
        super().__init__(on_progress)
        self._other = other

    @property
    def cancelled(self) -> bool:
        """Whether cancellation of this or the other monitor was requested."""
        return super().cancelled or self._other.cancelled


class TimeLimit(LinkedMonitor):
    """A monitor that passes progress on, and is cancelled when its time is over or the other monitor is cancelled.

    ``seconds`` count from its creation; None sets no limit.
    """

    def __init__(self, other: Monitor, seconds: float | None) -> None:
        super().__init__(other, lambda event: other.report(event.stage, event.done, event.total, event.figures))
        self._start, self._seconds = time.monotonic(), seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        """Seconds that are left; infinite without a limit."""
        return float("inf") if self._seconds is None else self._seconds - self.elapsed

    @property
    def stopped(self) -> bool:
        """Whether cancellation was requested."""
        return super().cancelled

    @property
    def cancelled(self) -> bool:
        """Whether cancellation was requested, or the time is over."""
        return self.stopped or self.left <= 0


class NullMonitor(Monitor):
    """The default monitor, which ignores progress."""

    def cancel(self) -> None:
        """Refuse, because this instance is shared by all callers without a monitor."""
        raise RuntimeError("the shared null monitor cannot be cancelled; pass a Monitor() of your own")


NULL_MONITOR = NullMonitor()
