"""The second process of trainings: it trains as the first one orders, with a fault that the first one chooses."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import torch
from torch.distributed import TCPStore

from ptychopinn.errors import ResourceError
from ptychopinn.monitor import Monitor
from ptychopinn.training.objective import Objective
from ptychopinn.training.ranks import Ranks
from ptychopinn.training.sources import BatchLoader
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.ranks import GlooChannel
from ptychopinn_torch.reconstructor import TorchReconstructor, import_training_loop

HERE = "127.0.0.1"


def channel_of(rank: int, store: Callable[[], TCPStore], watch: Callable[[], None] = lambda: None) -> GlooChannel:
    """One of two processes on the CPU."""
    return GlooChannel(torch.device("cpu"), rank, 2, store, watch)


@contextmanager
def fault(name: str, monitor: Monitor) -> Iterator[None]:
    """Something that happens in this process at its third batch."""
    calls = 0

    def strike(self: Any, model: Any, batch: Any, original: Any = Objective.__call__) -> Any:
        nonlocal calls
        calls += 1
        if name == "small" and batch["counts"].shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if calls >= 3 and name == "full":
            raise MemoryError("nothing is left")
        if calls == 3 and name == "defect":
            raise ValueError("a defect")
        if calls == 3 and name == "killed":
            os._exit(9)
        if calls == 3 and name == "asked":
            monitor.cancel()
        terms = original(self, model, batch)
        return terms._replace(total=terms.total * math.nan) if calls == 3 and name == "nan" else terms

    def unread(self: Any, epoch: int, original: Any = BatchLoader.batches) -> Iterator[Any]:
        if epoch == 1 and name == "unread":
            raise OSError("the disk is gone")
        yield from original(self, epoch)

    with mock.patch.object(Objective, "__call__", strike), mock.patch.object(BatchLoader, "batches", unread):
        yield


def main(port: int) -> None:
    """Train again and again, until the first process ends."""
    import_training_loop()  # takes seconds, which no branch is to count
    channel = channel_of(1, lambda: TCPStore(HERE, port, 2, is_master=False))
    channel.connect()
    while True:
        monitor = Monitor()
        ranks = Ranks(channel, monitor)
        chosen = ranks.share()
        with fault(chosen, monitor), suppress(ResourceError, MemoryError, ValueError, OSError):
            TorchReconstructor.follow(TorchOptions(accelerator="cpu"), ranks)
        if not channel.connected:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))
