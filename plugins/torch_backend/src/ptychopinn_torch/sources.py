"""Sources of the batches of a training: the core, or data kept on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from ptychopinn.training import EpochSource, patterns_in
from ptychopinn.training.resident import keep_groups
from ptychopinn.training.sources import Batch, BatchLoader, BatchPart, MemoryBudget
from ptychopinn_torch.arrays import TorchLibrary, is_out_of_memory
from ptychopinn_torch.batches import to_tensor
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.simulation import SimulatedPatterns

_MIB = 1 << 20
_NO_LIMIT_MB = 1 << 40


def device_budget(options: TorchOptions, device: torch.device) -> MemoryBudget:
    """What scans may take of a device's memory.

    Where nothing is asked for, it is half of what is free on a GPU; the CPU reads its batches from where they are.
    """
    asked, on_gpu = options.device_memory_budget_mb, device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] // 2 if on_gpu else 0
    return MemoryBudget(free if asked is None else asked * _MIB, in_use=on_gpu or bool(asked))


def choose_source(source: EpochSource, device: torch.device, budget: MemoryBudget, workers: int) -> BatchLoader:
    """The batches of a training or validation scan.

    What is within the budget stays on the device; other data come from ``source``. On a GPU there is one worker at
    least.
    """
    kept: list[BatchPart] = []
    groups, stream = source.groups, source.stream
    if stream is not None and budget.take(SimulatedPatterns.bytes_of(stream)):
        kept.append(SimulatedPatterns(source, device))
        stream = None
    if groups is not None:
        # The budget is asked whether there is room; the library need not.
        library = TorchLibrary(device, deterministic=True, budget_mb=_NO_LIMIT_MB)
        resident = keep_groups(groups, library, budget, is_out_of_memory)
        if resident is not None:
            kept.append(resident)
            groups = None
    if groups is not None or stream is not None:
        rest = EpochSource(groups, stream, len(source), source.simulated_patterns)
        kept.append(StreamedBatches(rest, device))
    return BatchLoader(kept, len(source), max(workers, 1) if device.type == "cuda" else workers)


class StreamedBatches:
    """Batches as the core reads them, one after another; a `ptychopinn.training.sources.BatchPart`.

    On a GPU they are read into page-locked memory, and are on their way while the ones before are computed.
    """

    on_host = True

    def __init__(self, source: EpochSource, device: torch.device) -> None:
        self._source, self._device = source, device
        on_gpu = device.type == "cuda"
        self._uploads = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]

    def prepare(self, epoch: int, number: int) -> tuple[Batch, torch.cuda.Event | None]:
        """Read a batch, and begin to upload it; the event says when it has arrived."""
        arrays = self._source.batch(epoch, number)
        tensors = {name: to_tensor(array) for name, array in arrays.items()}
        if self._uploads is None:
            return Batch(tensors, patterns_in(arrays)), None
        with torch.cuda.stream(self._uploads):
            moved = {name: self._upload(tensor) for name, tensor in tensors.items()}
            return Batch(moved, patterns_in(arrays)), self._uploads.record_event()

    def _upload(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def make(self, prepared: tuple[Batch, torch.cuda.Event | None]) -> Batch:
        """The batch; what is computed with it waits until it has arrived."""
        batch, arrived = prepared
        if arrived is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(arrived)
            for tensor in batch.tensors.values():
                tensor.record_stream(stream)  # else the memory could be used again while it is computed on
        return batch
