"""The batches of the epochs of a training, as NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields

import numpy as np

from ptychopinn.data.batches import GroupBatches
from ptychopinn.simulate.object_stream import ObjectStream
from ptychopinn.training.shares import loss_shares
from ptychopinn.typing import AnyArray


def patterns_in(batch: Mapping[str, AnyArray]) -> int:
    """Number of patterns in a batch of `EpochSource`, with the simulated ones."""
    measured = int(batch["member"].sum()) if "member" in batch else 0
    return measured + len(batch.get("simulated_counts", ()))


class EpochSource:
    """Batches of measured groups, simulated patterns, or both, with random access; safe to read from several threads.

    ``simulated_patterns`` is the number of simulated patterns in a batch.
    """

    def __init__(
        self, groups: GroupBatches | None, stream: ObjectStream | None, batches_per_epoch: int, simulated_patterns: int
    ) -> None:
        self.groups, self.stream, self.simulated_patterns = groups, stream, simulated_patterns
        self._batches_per_epoch = batches_per_epoch

    def __len__(self) -> int:
        return self._batches_per_epoch

    def __call__(self, epoch: int) -> Iterator[dict[str, AnyArray]]:
        """Iterate over the batches of an epoch."""
        return (self.batch(epoch, number) for number in range(len(self)))

    def step(self, epoch: int, number: int) -> int:
        """Number of batch ``number`` of an epoch, counted from the start of the training."""
        return epoch * len(self) + number

    def batch(self, epoch: int, number: int) -> dict[str, AnyArray]:
        """Batch ``number`` of an epoch; it depends only on the seeds and the two numbers.

        Returns
        -------
        Arrays by name. Of measured groups those of `ptychopinn.data.batches.GroupBatch`. Of simulated patterns
        ``simulated_counts`` (b, N, N) float32 with DC at [0, 0], ``simulated_truth`` (b, n, n) complex64 and, if probes
        are random, ``simulated_probe`` (b, modes, N, N) complex64 in root mean counts. And the shares of
        `ptychopinn.training.shares.loss_shares`.
        """
        arrays: dict[str, AnyArray] = {}
        if self.groups is not None:
            batch = self.groups.batch(epoch, number)
            named = ((f.name, getattr(batch, f.name)) for f in fields(batch))
            arrays = {name: array for name, array in named if array is not None}
        if self.stream is not None:
            made = self.stream.batch(self.step(epoch, number), self.simulated_patterns)
            arrays["simulated_counts"] = np.fft.ifftshift(made.counts, axes=(-2, -1))
            arrays["simulated_truth"] = made.patches
            if made.probes is not None:
                arrays["simulated_probe"] = made.probes / np.float32(math.sqrt(self.stream.mean_counts))
        return arrays | loss_shares(arrays)
