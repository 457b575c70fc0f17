"""The batches of one epoch after another, as plain arrays."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import fields

import numpy as np

from ptychopinn.data.batches import GroupBatches
from ptychopinn.simulate.stream import ObjectStream
from ptychopinn.training.shares import loss_shares
from ptychopinn.typing import AnyArray, ComplexArray


class EpochSource:
    """Measured groups, simulated patterns, or both; epoch k depends on the seeds and k alone.

    Parameters
    ----------
    groups:
        Measured groups, or None.
    stream:
        Simulated patterns, or None.
    batches_per_epoch:
        Batches in an epoch.
    simulated_patterns:
        Simulated patterns in a batch.
    probes:
        Draws the probe of a batch from its random numbers: (modes, N, N) complex; None leaves the stream's.
    seed:
        Of those draws.
    """

    def __init__(
        self,
        groups: GroupBatches | None,
        stream: ObjectStream | None,
        batches_per_epoch: int,
        simulated_patterns: int,
        probes: Callable[[np.random.Generator], ComplexArray] | None = None,
        seed: int = 0,
    ) -> None:
        self._probes, self._seed = probes, seed
        self._groups, self._stream = groups, stream
        self._batches_per_epoch, self._simulated_patterns = batches_per_epoch, simulated_patterns

    def __len__(self) -> int:
        return self._batches_per_epoch

    def __call__(self, epoch: int, first: int = 0, stride: int = 1) -> Iterator[dict[str, AnyArray]]:
        """The batches of an epoch; one of several workers takes every ``stride``-th from ``first`` on.

        Yields
        ------
        The arrays of `ptychopinn.data.batches.GroupBatch` that there are, by name; and ``simulated_counts``
        (b, N, N) float32 with DC at [0, 0] and ``simulated_truth`` (b, n, n) complex64; where probes are drawn,
        ``simulated_probe`` (modes, N, N) complex64 in root mean counts; and the shares of
        `ptychopinn.training.shares.loss_shares`.
        """
        measured = iter(self._groups(epoch, first, stride)) if self._groups is not None else None
        stream = copy.copy(self._stream)  # workers do not move each other's place in it, and share its objects
        for step in range(first, self._batches_per_epoch, stride):
            arrays: dict[str, AnyArray] = {}
            if measured is not None:
                batch = next(measured)
                named = ((f.name, getattr(batch, f.name)) for f in fields(batch))
                arrays = {name: array for name, array in named if array is not None}
            if stream is not None:
                number = epoch * self._batches_per_epoch + step
                if self._probes is not None:
                    stream.set_probe(self._probes(np.random.default_rng([self._seed, number])))
                    arrays["simulated_probe"] = stream.probe / np.float32(math.sqrt(stream.mean_counts))
                counts, truth = stream.at(number).batch(self._simulated_patterns)
                arrays["simulated_counts"] = np.fft.ifftshift(counts, axes=(-2, -1))
                arrays["simulated_truth"] = truth
            yield arrays | loss_shares(arrays)
