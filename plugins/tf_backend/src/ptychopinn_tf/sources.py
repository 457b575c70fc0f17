"""Where the batches of a training come from: from the core one by one, or from what stays on the device."""

from __future__ import annotations

from ptychopinn.arrays import ArrayLibrary
from ptychopinn.training import EpochSource, ScanBatches, patterns_in
from ptychopinn.training.resident import Gather, keep_groups
from ptychopinn.training.sources import Batch, BatchLoader, BatchPart, MemoryBudget
from ptychopinn.typing import AnyArray
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.arrays import is_out_of_memory
from ptychopinn_tf.batches import to_tensors
from ptychopinn_tf.devices import Device
from ptychopinn_tf.options import TfOptions
from ptychopinn_tf.tensors import TensorLibrary

_MIB = 1 << 20


def device_budget(options: TfOptions, device: Device, library: ArrayLibrary) -> MemoryBudget:
    """What scans may take of a device's memory.

    TensorFlow does not say how much of a GPU is free; CuPy does, if what follows a prediction is computed with it.
    """
    asked = options.device_memory_budget_mb
    left = library.budget_bytes if asked is None else asked * _MIB
    return MemoryBudget(left, in_use=device.on_gpu or bool(asked))


def choose_source(scan: ScanBatches, device: Device, budget: MemoryBudget, workers: int) -> BatchLoader:
    """The batches of a training or validation scan.

    What is within the budget stays on the device; the rest is read for each batch. Simulated patterns are made on the
    host: TensorFlow draws Poisson counts there alone.
    """
    source, full = scan.batches, scan.groups.largest_batch
    parts: list[BatchPart] = []
    groups = source.groups
    if groups is not None:

        def compiled(gather: Gather) -> Gather:
            function = device.function(gather)
            return lambda held, number: function(held, device.numbers(number, tf.int32))

        resident = keep_groups(groups, TensorLibrary(device.name), budget, is_out_of_memory, compiled)
        if resident is not None:
            parts.append(resident)
            groups = None
    if groups is not None or source.stream is not None:
        rest = EpochSource(groups, source.stream, len(source), source.simulated_patterns)
        parts.append(StreamedBatches(rest, full))
    return BatchLoader(parts, len(source), workers)


class StreamedBatches:
    """Batches as the core reads them; a `ptychopinn.training.sources.BatchPart`. A full batch has ``groups`` groups."""

    on_host = True

    def __init__(self, source: EpochSource, groups: int) -> None:
        self._source, self._groups = source, groups

    def prepare(self, epoch: int, number: int) -> dict[str, AnyArray]:
        """Read a batch."""
        return self._source.batch(epoch, number)

    def make(self, prepared: dict[str, AnyArray]) -> Batch:
        """The batch as tensors."""
        return Batch(to_tensors(prepared, self._groups), patterns_in(prepared))
