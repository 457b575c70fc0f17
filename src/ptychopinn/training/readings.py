"""When the losses that a device has summed are read: each reading waits for the device."""

from __future__ import annotations

import math
import time

_INTERVAL_S = 0.25


class ReadingClock:
    """Says when losses are to be read: at every step on a CPU, a few times a second on a GPU."""

    def __init__(self, *, on_gpu: bool) -> None:
        self._interval_s = _INTERVAL_S if on_gpu else 0.0
        self._read_at = -math.inf

    def due(self) -> bool:
        """Whether it is time; if so, the next one is due an interval later."""
        now = time.monotonic()
        if now - self._read_at < self._interval_s:
            return False
        self._read_at = now
        return True
