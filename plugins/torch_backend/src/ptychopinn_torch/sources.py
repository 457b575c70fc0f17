"""Where the batches of a training come from: from the core one by one, or from what stays on the device."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Protocol

import torch
from torch import Tensor

from ptychopinn.data.batches import GroupBatches
from ptychopinn.training import EpochSource, prefetch
from ptychopinn_torch.arrays import TorchLibrary, is_out_of_memory
from ptychopinn_torch.batches import TensorBatch
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.resident import ResidentGroups, resident_bytes
from ptychopinn_torch.simulation import SimulatedPatterns

_log = logging.getLogger("ptychopinn.torch")
_MIB = 1 << 20
_NO_LIMIT_MB = 1 << 40


class BatchSource(Protocol):
    """Batches on the device that computes."""

    def batches(self, epoch: int) -> Generator[TensorBatch, None, None]:
        """The batches of an epoch in order; close it."""
        ...


class DeviceBudget:
    """Bytes of the device's memory that scans may take.

    Parameters
    ----------
    options, device:
        Where nothing is asked for, it is half of what is free on a GPU; the CPU reads its batches from where they are.

    Attributes
    ----------
    left:
        Bytes.
    in_use:
        Whether there was any room at first.
    """

    def __init__(self, options: TorchOptions, device: torch.device) -> None:
        asked, on_gpu = options.device_memory_budget_mb, device.type == "cuda"
        self.in_use = on_gpu or bool(asked)
        if asked is not None:
            self.left = asked * _MIB
        else:
            self.left = torch.cuda.mem_get_info(device)[0] // 2 if on_gpu else 0

    def take(self, needed: int) -> bool:
        """Take so many bytes, if they are there."""
        fits = needed <= self.left
        self.left -= needed if fits else 0
        return fits


def choose_source(source: EpochSource, device: torch.device, budget: DeviceBudget, workers: int) -> BatchSource:
    """The batches of a training or validation scan.

    Parameters
    ----------
    source:
        As arrays.
    device:
        That computes.
    budget:
        What may stay there; the rest comes from ``source``.
    workers:
        Threads that make batches ahead.
    """
    simulated, resident = None, None
    if source.stream is not None and budget.take(SimulatedPatterns.bytes_of(source.stream)):
        simulated = SimulatedPatterns(source, device, workers)
    if source.groups is not None:
        resident = _resident(source.groups, device, budget)
    made_there = [part for part in (resident, simulated) if part is not None]
    rest = EpochSource(
        None if resident else source.groups,
        None if simulated else source.stream,
        len(source),
        source.simulated_patterns,
    )
    if rest.groups is None and rest.stream is None:
        return made_there[0] if len(made_there) == 1 else JoinedBatches(made_there)
    streamed = StreamedBatches(rest, device, workers)
    return JoinedBatches([streamed, *made_there]) if made_there else streamed


def _resident(groups: GroupBatches, device: torch.device, budget: DeviceBudget) -> ResidentGroups | None:
    """The groups of a scan on the device, where it has room for them."""
    needed, name = resident_bytes(groups), groups.data.name
    if budget.take(needed):
        try:
            # It was asked for above whether there is room.
            resident = ResidentGroups(groups, TorchLibrary(device, deterministic=True, budget_mb=_NO_LIMIT_MB))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            budget.left += needed
        else:
            _log.info("The patterns of '%s' stay on %s: %.0f MiB.", name, device, needed / _MIB)
            return resident
    if budget.in_use:
        _log.info(
            "The patterns of '%s' are read batch by batch: %.0f MiB do not fit on %s.", name, needed / _MIB, device
        )
    return None


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


class JoinedBatches:
    """Batches with what several sources have, each as many batches as the others."""

    def __init__(self, parts: Sequence[BatchSource]) -> None:
        self._parts = parts

    def batches(self, epoch: int) -> Generator[TensorBatch, None, None]:
        """The batches of an epoch in order."""
        with ExitStack() as stack:
            sources = [stack.enter_context(closing(part.batches(epoch))) for part in self._parts]
            for found in zip(*sources, strict=True):
                tensors = {name: tensor for batch in found for name, tensor in batch.tensors.items()}
                yield TensorBatch(tensors, sum(batch.patterns for batch in found))
