"""The processes that train together. The first one decides everything; the others follow its orders.

All processes have the same scan, the same weights and the same batches. Each computes its share of a batch, and the
gradients are added up, so all make the same step. Clock, monitor, log, checkpoints and early stopping are the first
process's alone: before every step it orders the others to make it, and at the end to stop. So none is ever out of step.
What fails in one of them is told to all before anything is added up.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from ptychopinn.config.model import ModelConfig
from ptychopinn.config.train import ResolvedTrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ResourceError
from ptychopinn.failures import explained
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.training.operations import Tensor
from ptychopinn.typing import AnyArray, ComplexArray

T = TypeVar("T")
MAX_MESSAGE_BYTES = 1 << 26


class Action(IntEnum):
    """What the first process orders."""

    END = 0
    START = 1
    TRAIN = 2
    VALIDATE = 3


class Order(NamedTuple):
    """An order. The batch and the learning rate are those of a step."""

    action: Action
    epoch: int = 0
    number: int = 0
    rate: float = 0.0


class Channel(Protocol):
    """A connection of processes. Each calls the same methods in the same order, and waits in them for all others.

    Its methods raise a ResourceError if a process is lost, or does not answer within a limit.
    """

    rank: int  # number of this process; the first is 0
    count: int  # of processes
    connected: bool

    def connect(self) -> None:
        """Meet the others, if it has not yet."""
        ...

    def close(self) -> None:
        """Leave the others."""
        ...

    def broadcast(self, array: AnyArray, root: int) -> None:
        """Replace an array by that of one process."""
        ...

    def maximum(self, array: AnyArray) -> None:
        """Replace an array by its elementwise maximum over the processes."""
        ...

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor of the framework by its sum over the processes."""
        ...


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """What the other processes need to train with the first one."""

    model: ModelConfig
    config: ResolvedTrainConfig
    data: ScanDataset
    validation: ScanDataset | None
    unit_probe: ComplexArray  # as in `ptychopinn.training.plan.make_plan`
    model_arrays: dict[str, AnyArray]  # in the layout of the archive
    state: dict[str, AnyArray]  # of the training: `ptychopinn.training.state.Trainable.state`
    threads: int


class Ranks:
    """The processes of a training, as one of them sees them. Without a channel this process is alone.

    ``monitor`` of a process that is not the first can ask the first one to cancel.
    """

    def __init__(self, channel: Channel | None = None, monitor: Monitor = NULL_MONITOR) -> None:
        self._channel, self._monitor = channel, monitor
        self._others_wait = True  # for an order
        self.cancelled = False  # whether one of the other processes was asked to stop

    @property
    def rank(self) -> int:
        """Number of this process; the first is 0."""
        return 0 if self._channel is None else self._channel.rank

    @property
    def count(self) -> int:
        """Number of processes."""
        return 1 if self._channel is None else self._channel.count

    # Orders

    @contextmanager
    def ordered(self, order: Order) -> Iterator[None]:
        """Order the others to do what this block does; called by the first process."""
        self._send(order)
        self._others_wait = False
        yield
        self._others_wait = True

    def start(self, task: TrainingTask) -> None:
        """Give the others what they need; called by the first process. Raises ResourceError if they cannot use it."""
        with self.ordered(Order(Action.START)):
            self.share(task)
            self.together(lambda: None)  # while the others prepare

    def end(self) -> None:
        """Order the others to end, if they wait for an order; called by the first process."""
        if self._channel is not None and self._channel.connected and self._others_wait:
            self._send(Order(Action.END))

    def next_order(self) -> Order:
        """The next order of the first process."""
        action, epoch, number, rate = self._broadcast(np.zeros(4)).tolist()
        return Order(Action(int(action)), int(epoch), int(number), rate)

    def _send(self, order: Order) -> None:
        if self._channel is not None:
            self._broadcast(np.array(order, np.float64))

    # Work

    def together(self, compute: Callable[[], T]) -> T:
        """Compute something in all processes.

        Raises
        ------
        ResourceError
            If it failed in another process, with that process's words. What fails here is raised as it is.
        """
        if self._channel is None:
            return compute()
        failure: BaseException | None = None
        try:
            found = compute()
        except BaseException as error:  # raised below, when the others know
            failure = error
        status = np.array([self._monitor.cancelled, 0 if failure is None else self.rank + 1], np.int64)
        self._channel.maximum(status)
        self.cancelled |= bool(status[0])
        failed = int(status[1]) - 1
        if failed >= 0:
            words = self._text("" if failure is None else str(explained(failure)), failed)
            raise failure or ResourceError(f"Process {failed} of the training failed: {words}")
        return found

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the processes."""
        if self._channel is not None:
            self._channel.add(tensor)

    # Values

    def share(self, value: Any = None) -> Any:
        """The value that the first process gives, in all processes."""
        if self._channel is None:
            return value
        blocks: list[AnyArray] = []
        if self.rank == 0:
            buffers: list[pickle.PickleBuffer] = []  # arrays, which are not copied into one message
            body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
            blocks = [_bytes_of(part) for part in (body, *(buffer.raw() for buffer in buffers))]
        count = int(self._broadcast(np.array([len(blocks)]))[0])
        sizes = self._broadcast(np.array([len(block) for block in blocks] or [0] * count))
        if self.rank > 0:
            blocks = [np.empty(size, np.uint8) for size in sizes.tolist()]
        for block in blocks:
            for start in range(0, len(block), MAX_MESSAGE_BYTES):
                part = block[start : start + MAX_MESSAGE_BYTES]
                there = self._broadcast(part.copy())
                if self.rank > 0:
                    part[:] = there
        return value if self.rank == 0 else pickle.loads(blocks[0].data, buffers=blocks[1:])

    def _text(self, text: str, root: int) -> str:
        """A text of one process, in all."""
        body = _bytes_of(text.encode())
        size = int(self._broadcast(np.array([len(body)]), root)[0])
        return self._broadcast(body.copy() if self.rank == root else np.empty(size, np.uint8), root).tobytes().decode()

    def _broadcast(self, array: AnyArray, root: int = 0) -> AnyArray:
        """An array of one process, in all."""
        assert self._channel is not None
        self._channel.broadcast(array, root)
        return array


def _bytes_of(data: Any) -> AnyArray:
    return np.frombuffer(data, np.uint8) if len(data) else np.zeros(0, np.uint8)
