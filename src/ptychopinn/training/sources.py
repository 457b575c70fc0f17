"""Where the batches of a training come from: parts that a device keeps or makes, and parts that the host reads."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from ptychopinn.training.operations import Tensor
from ptychopinn.training.prefetch import prefetch


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch."""

    tensors: Mapping[str, Tensor]  # the arrays of `EpochSource` that there are, by name, on the device that computes
    patterns: int  # patterns in it, simulated ones counted

    @property
    def size(self) -> int:
        """Into how many parts it can be cut: groups, or single patterns where there are no groups."""
        return int(self.tensors["counts" if "counts" in self.tensors else "simulated_counts"].shape[0])


class BatchPart(Protocol):
    """Some of the tensors of every batch."""

    @property
    def on_host(self) -> bool:
        """Whether the host has work to do for each batch, which threads may do ahead."""
        ...

    def prepare(self, epoch: int, number: int) -> Any:
        """What the host does for batch ``number`` of an epoch; called by any thread."""
        ...

    def make(self, prepared: Any) -> Batch:
        """The tensors, on the device; called in the order of the batches, by the thread that trains."""
        ...


class BatchLoader:
    """Batches made of one part or more. Workers are threads that prepare batches ahead; with 0 the caller does."""

    def __init__(self, parts: Sequence[BatchPart], count: int, workers: int) -> None:
        self.parts, self._count = parts, count
        self._workers = workers if any(part.on_host for part in parts) else 0

    def batches(self, epoch: int) -> Generator[Batch, None, None]:
        """The batches of an epoch in order; close it."""

        def prepare(number: int) -> list[Any]:
            return [part.prepare(epoch, number) for part in self.parts]

        with closing(prefetch(prepare, self._count, self._workers)) as ready:
            for prepared in ready:
                made = [part.make(one) for part, one in zip(self.parts, prepared, strict=True)]
                tensors = {name: tensor for batch in made for name, tensor in batch.tensors.items()}
                yield Batch(tensors, sum(batch.patterns for batch in made))


class MemoryBudget:
    """Bytes of a device's memory that scans may take.

    With ``in_use``, somebody expects scans to be kept, so the log says why one is not.
    """

    def __init__(self, left: int, *, in_use: bool) -> None:
        self.left, self.in_use = left, in_use

    def take(self, needed: int) -> bool:
        """Take so many bytes, if they are there."""
        fits = needed <= self.left
        self.left -= needed if fits else 0
        return fits
