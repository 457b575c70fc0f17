"""NumPy batches of the core as tensors, and their way to the device that computes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ptychopinn.training import EpochSource, patterns_in, prefetch
from ptychopinn.typing import AnyArray


def to_tensor(array: AnyArray, device: torch.device | str = "cpu") -> Tensor:
    """An array as a tensor on a device; shares memory where it can."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def upload(array: AnyArray, device: torch.device) -> Tensor:
    """A small array on a device; nobody waits for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@dataclass(frozen=True)
class TensorBatch:
    """One batch.

    Attributes
    ----------
    tensors:
        The arrays of `ptychopinn.training.EpochSource` that there are, by name.
    patterns:
        Patterns in it, simulated ones counted.
    """

    tensors: Mapping[str, Tensor]
    patterns: int

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, AnyArray]) -> TensorBatch:
        """A batch of `EpochSource`, in the memory it has."""
        return cls({name: to_tensor(array) for name, array in arrays.items()}, patterns_in(arrays))

    def map(self, function: Callable[[Tensor], Tensor]) -> TensorBatch:
        """The same batch of other tensors."""
        return TensorBatch({name: function(tensor) for name, tensor in self.tensors.items()}, self.patterns)

    @property
    def size(self) -> int:
        """Into how many parts it can be cut: groups, or single patterns where there are no groups."""
        return len(self.tensors["counts" if "counts" in self.tensors else "simulated_counts"])

    def cut(self, parts: int) -> list[Mapping[str, Tensor]]:
        """Its tensors in parts of nearly the same size."""
        if parts == 1:
            return [self.tensors]
        shares = {name: tensor.tensor_split(parts) for name, tensor in self.tensors.items()}
        return [{name: share[part] for name, share in shares.items()} for part in range(parts)]


class BatchSource(Protocol):
    """Batches on the device that computes."""

    def batches(self, epoch: int) -> Generator[TensorBatch, None, None]:
        """The batches of an epoch in order."""
        ...


class StreamedBatches:
    """Batches as the core reads them, one after another.

    On a GPU the next batches are read by threads into page-locked memory, and uploaded while one is computed.

    Parameters
    ----------
    source:
        The batches as arrays.
    device:
        Where they are wanted.
    workers:
        Threads that read; 0 reads in the caller's, or on a GPU in one thread beside it.
    """

    def __init__(self, source: EpochSource, device: torch.device, workers: int) -> None:
        self._source, self._device, self._workers = source, device, workers

    def batches(self, epoch: int) -> Generator[TensorBatch, None, None]:
        """The batches of an epoch in order."""
        source, on_gpu = self._source, self._device.type == "cuda"

        def read(number: int) -> TensorBatch:
            batch = TensorBatch.from_arrays(source.batch(epoch, number))
            return batch.map(Tensor.pin_memory) if on_gpu else batch

        with closing(prefetch(read, len(source), max(self._workers, 1) if on_gpu else self._workers)) as ready:
            yield from _uploaded(ready, self._device) if on_gpu else ready


def _uploaded(batches: Iterator[TensorBatch], device: torch.device) -> Generator[TensorBatch, None, None]:
    """Page-locked batches on a GPU; each is on its way while the one before is computed."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begin(batch: TensorBatch) -> tuple[TensorBatch, torch.cuda.Event]:
        with torch.cuda.stream(side):
            moved = batch.map(lambda tensor: tensor.to(device, non_blocking=True))
            return moved, side.record_event()

    def finish(moved: TensorBatch, arrived: torch.cuda.Event) -> TensorBatch:
        main = torch.cuda.current_stream(device)
        main.wait_event(arrived)
        for tensor in moved.tensors.values():
            tensor.record_stream(main)  # else the memory could be used again while it is computed on
        return moved

    before: tuple[TensorBatch, torch.cuda.Event] | None = None
    for batch in batches:
        under_way = begin(batch)
        if before is not None:
            yield finish(*before)
        before = under_way
    if before is not None:
        yield finish(*before)
