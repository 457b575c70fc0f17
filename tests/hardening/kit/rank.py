"""The second process of trainings: it trains as the first one orders, with a fault that the first one chooses."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from unittest import mock

from ptychopinn.errors import ResourceError
from ptychopinn.monitor import Monitor
from ptychopinn.training import MicroBatches, NetworkReconstructor
from ptychopinn.training.ranks import Channel, Ranks
from ptychopinn.training.sources import Batch, BatchLoader

HERE = "127.0.0.1"
SECRET = "of the tests"


@dataclass(frozen=True)
class Meeting:
    """How two processes of one backend meet: the port, where the first one waits, and its channel."""

    port: int
    channel: Channel


class TorchPair:
    """Over gloo."""

    module = "ptychopinn_torch.reconstructor"

    @staticmethod
    def reconstructor() -> type[NetworkReconstructor[Any]]:
        """The class, with all that a training imports: it takes seconds, which no branch is to count."""
        from ptychopinn_torch.reconstructor import TorchReconstructor, import_training_loop

        import_training_loop()
        return TorchReconstructor

    @staticmethod
    def first() -> Meeting:
        """Wait for the second one, with its own process."""
        import torch
        from torch.distributed import TCPStore

        from ptychopinn_torch.ranks import GlooChannel

        store = TCPStore(HERE, 0, 2, is_master=True, wait_for_workers=False)
        return Meeting(store.port, GlooChannel(torch.device("cpu"), 0, 2, lambda: store))

    @staticmethod
    def second(port: int) -> Channel:
        """Meet the first one."""
        import torch
        from torch.distributed import TCPStore

        from ptychopinn_torch.ranks import GlooChannel

        return GlooChannel(torch.device("cpu"), 1, 2, lambda: TCPStore(HERE, port, 2, is_master=False))


class TfPair:
    """Over TCP."""

    module = "ptychopinn_tf.reconstructor"

    @staticmethod
    def reconstructor() -> type[NetworkReconstructor[Any]]:
        """The class."""
        from ptychopinn_tf.reconstructor import TfReconstructor

        return TfReconstructor

    @staticmethod
    def first() -> Meeting:
        """Wait for the second one, with its own process."""
        from ptychopinn.training.sockets import Entrance, entrance_channel

        entrance = Entrance(HERE, 0, SECRET)
        return Meeting(entrance.port, entrance_channel(entrance, 2))

    @staticmethod
    def second(port: int) -> Channel:
        """Meet the first one."""
        from ptychopinn.training.sockets import SocketChannel, call

        return SocketChannel(1, 2, lambda: call(HERE, port, SECRET, 1))


BACKENDS: dict[str, Any] = {"torch": TorchPair, "tf": TfPair}


@contextmanager
def fault(name: str, monitor: Monitor) -> Iterator[None]:
    """Something that happens in this process at its third batch."""
    calls = 0

    def strike(self: Any, summed: Callable[[int], Any], size: int, original: Any = MicroBatches.compute) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3 and name == "defect":
            raise ValueError("a defect")
        if calls == 3 and name == "killed":
            os._exit(9)
        if calls == 3 and name == "asked":
            monitor.cancel()

        def tight(parts: int) -> Any:
            if (name == "small" and parts < size) or (name == "full" and calls >= 3):
                raise MemoryError("nothing is left")
            return summed(parts)

        return original(self, tight, size)

    def read(self: Any, epoch: int, original: Any = BatchLoader.batches) -> Iterator[Any]:
        if epoch == 1 and name == "unread":
            raise OSError("the disk is gone")
        for number, batch in enumerate(original(self, epoch)):
            if number == 2 and name == "nan":
                spoilt = {**batch.tensors, "member_share": batch.tensors["member_share"] * math.nan}
                yield Batch(spoilt, batch.patterns)
            else:
                yield batch

    with mock.patch.object(MicroBatches, "compute", strike), mock.patch.object(BatchLoader, "batches", read):
        yield


def main(backend: str, port: int) -> None:
    """Train again and again, until the first process ends."""
    pair = BACKENDS[backend]
    reconstructor = pair.reconstructor()
    channel = pair.second(port)
    channel.connect()
    while True:
        monitor = Monitor()
        ranks = Ranks(channel, monitor)
        chosen = ranks.share()
        with fault(chosen, monitor), suppress(ResourceError, MemoryError, ValueError, OSError):
            reconstructor.follow(reconstructor.options_model(accelerator="cpu"), ranks)
        if not channel.connected:
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
