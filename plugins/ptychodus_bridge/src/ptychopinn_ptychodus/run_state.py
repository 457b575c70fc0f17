"""The state of a run, which the window polls, and what the entries share."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

PROGRESS_GOAL = 1000  # of the progress bar


@dataclass
class Run:
    """A call of train or of reconstruct, as the GUI watches it from another thread."""

    # Name of the reconstructor that started it; "train", "infer" or "reconstruct".
    entry: str
    kind: str
    # (batches, loss) so far: batches seen, and the mean loss since the entry before.
    losses: list[tuple[int, float]] = field(default_factory=list)
    error: Exception | None = None
    # Whether it was asked to stop; whether its worker saves by itself while Ptychodus closes; whether it has ended.
    stopping: bool = False
    left_alone: bool = False
    finished: bool = False
    worker_pid: int | None = None
    # Ptychodus's item for the product of an inference, which it makes before; whether the product was made.
    product_item: Any = None
    has_product: bool = False


class Host:
    """Ptychodus's monitor and task manager, and the current or latest run: what the entries share."""

    def __init__(self) -> None:
        self._task_manager: Any = None
        self._monitor: Any = None
        self.has_window = False  # else it is batch mode
        self.latest_run: Run | None = None  # the current run, or the latest one
        self._product_items: deque[Any] = deque()

    def connect(self, task_manager: Any, monitor: Any) -> None:
        """Take the two that say whether to stop."""
        self._task_manager, self._monitor = task_manager, monitor

    @property
    def stop_wanted(self) -> bool:
        """Whether Stop was pressed."""
        return self._monitor is not None and bool(self._monitor.is_stopping)

    @property
    def closing(self) -> bool:
        """Whether Ptychodus is ending."""
        return self._task_manager is not None and bool(self._task_manager.is_stopping)

    def expect_product(self, item: Any) -> None:
        """Note the item for the product of the next inference; they run in the order in which they are asked for."""
        self._product_items.append(item)

    def take_product_item(self) -> Any:
        """The item for the product of the inference that starts; None if Ptychodus made none."""
        return self._product_items.popleft() if self._product_items else None

    def show_progress(self, progress: int) -> None:
        """Move the progress bar."""
        if self._monitor is not None:
            self._monitor.update_progress(progress, PROGRESS_GOAL)
