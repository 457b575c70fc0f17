"""Sources of the batches of a training: the core, or data kept on the device."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Protocol

import torch
from torch import Tensor

from ptychopinn.data.batches import GroupBatches
from ptychopinn.training import EpochSource, prefetch
from ptychopinn_torch.arrays import TorchLibrary
from ptychopinn_torch.batches import TensorBatch
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.resident import ResidentGroups, resident_bytes
from ptychopinn_torch.simulation import SimulatedPatterns

_log = logging.getLogger("ptychopinn.torch")
_MIB = 1 << 20
_NO_LIMIT_MB = 1 << 40


class BatchSource(Protocol):
    """A source of batches on the device."""

    def batches(self, epoch: int) -> Generator[TensorBatch, None, None]:
        """The batches of an epoch in order; close the generator."""
        ...


class DeviceBudget:
    """Memory of the device for scans; by default half of the free memory of a GPU, and 0 on the CPU.

    Attributes
    ----------
    left:
        Bytes left.
    in_use:
        Whether there is a budget at all.
    """

    def __init__(self, options: TorchOptions, device: torch.device) -> None:
        asked, on_gpu = options.device_memory_budget_mb, device.type == "cuda"
        self.in_use = on_gpu or bool(asked)
        if asked is not None:
            self.left = asked * _MIB
        else:
            self.left = torch.cuda.mem_get_info(device)[0] // 2 if on_gpu else 0

    def take(self, needed: int) -> bool:
        """Take ``needed`` bytes, if they are left."""
        fits = needed <= self.left
        self.left -= needed if fits else 0
        return fits


def choose_source(source: EpochSource, device: torch.device, budget: DeviceBudget, workers: int) -> BatchSource:
    """Choose the source of the batches of a training or validation scan.

    Parameters
    ----------
    source:
        The batches as arrays.
    budget:
        Memory for data that stay on the device; other data come from ``source``.
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
    """The groups of a scan on the device, if it has room for them."""
    needed, name = resident_bytes(groups), groups.data.name
    if budget.take(needed):
        try:
            # The budget was checked above.
            resident = ResidentGroups(groups, TorchLibrary(device, deterministic=True, budget_mb=_NO_LIMIT_MB))
        except torch.OutOfMemoryError:
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
    """Batches read by the core one after another.

    For a GPU, threads read the next batches into page-locked memory, and they are uploaded during the computation.
    ``workers`` is the number of threads; with 0 the caller reads, or for a GPU one thread.
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
            yield from _upload(ready, self._device) if on_gpu else ready


def _upload(batches: Iterator[TensorBatch], device: torch.device) -> Generator[TensorBatch, None, None]:
    """Upload page-locked batches to a GPU, each while the previous one is computed."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begin(batch: TensorBatch) -> tuple[TensorBatch, torch.cuda.Event]:
        with torch.cuda.stream(side):
            moved = batch.map(lambda tensor: tensor.to(device, non_blocking=True))
            return moved, side.record_event()

    def finish(moved: TensorBatch, arrived: torch.cuda.Event) -> TensorBatch:
        main = torch.cuda.current_stream(device)
        main.wait_event(arrived)
        for tensor in moved.tensors.values():
            tensor.record_stream(main)  # else the memory could be reused too early
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
    """Batches that join those of several sources of equal length."""

    def __init__(self, parts: Sequence[BatchSource]) -> None:
        self._parts = parts

    def batches(self, epoch: int) -> Generator[TensorBatch, None, None]:
        """The batches of an epoch in order."""
        with ExitStack() as stack:
            sources = [stack.enter_context(closing(part.batches(epoch))) for part in self._parts]
            for found in zip(*sources, strict=True):
                tensors = {name: tensor for batch in found for name, tensor in batch.tensors.items()}
                yield TensorBatch(tensors, sum(batch.patterns for batch in found))
