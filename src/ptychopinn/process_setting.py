"""A setting of the whole process that blocks of several threads change at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ProcessSetting:
    """Is on while any thread needs it, and put back when the last block ends, in whatever order blocks end.

    A thread needs what its innermost block says.

    Parameters
    ----------
    save:
        Called before the first block; returns what puts everything back.
    switch:
        Switches the setting on or off.
    """

    def __init__(self, save: Callable[[], Callable[[], None]], switch: Callable[[bool], None]) -> None:
        self._save, self._switch = save, switch
        self._lock = threading.Lock()
        self._blocks: dict[object, tuple[int, bool]] = {}  # thread, and what it needs, in the order of their starts
        self._put_back: Callable[[], None] = lambda: None

    @contextmanager
    def block(self, *, on: bool) -> Iterator[None]:
        """Need the setting on, or not, in this thread."""
        block = object()
        with self._lock:
            if not self._blocks:
                self._put_back = self._save()
            self._blocks[block] = (threading.get_ident(), on)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                del self._blocks[block]
                if self._blocks:
                    self._apply()
                else:
                    self._put_back()

    def _apply(self) -> None:
        self._switch(any(dict(self._blocks.values()).values()))
