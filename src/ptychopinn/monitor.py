"""Progress and cancellation: one small object that long work is handed and asks at every step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One progress event.

    ``stage`` names the work ("train", "predict", "stitch", ...); ``done`` of ``total`` steps are
    finished (``total`` 0: not known); ``figures`` are the newest numbers worth showing (losses).
    """

    stage: str
    done: int
    total: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)


class Monitor:
    """Receives progress and says whether to stop. Safe to cancel from another thread.

    Parameters
    ----------
    on_progress:
        Called with each `Progress`; must be quick, long work waits for it.
    """

    def __init__(self, on_progress: Callable[[Progress], None] | None = None) -> None:
        self._on_progress = on_progress
        self._cancelled = threading.Event()

    def report(self, stage: str, done: int, total: int = 0, figures: Mapping[str, float] | None = None) -> None:
        """Tell the listener how far ``stage`` is."""
        if self._on_progress is not None:
            self._on_progress(Progress(stage, done, total, dict(figures or {})))

    def cancel(self) -> None:
        """Ask the work to stop at its next step."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """True once somebody asked to stop."""
        return self._cancelled.is_set()


class NullMonitor(Monitor):
    """Listens to nothing; what functions use when the caller hands over no monitor."""

    def cancel(self) -> None:
        """Refuse: this instance is shared as a default, cancelling it would cancel everybody."""
        raise RuntimeError("the shared null monitor cannot be cancelled; pass a Monitor() of your own")


NULL_MONITOR = NullMonitor()
