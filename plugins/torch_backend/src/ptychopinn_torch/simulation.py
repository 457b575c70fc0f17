"""Simulate training patterns on the device, from the objects and probes of the core's stream."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ptychopinn.forward import window_counts
from ptychopinn.simulate.object_stream import ObjectStream, RandomPool, WindowDraw
from ptychopinn.training import EpochSource
from ptychopinn.training.sources import Batch
from ptychopinn.typing import AnyArray, ComplexArray, IntArray
from ptychopinn_torch.arrays import TorchLibrary
from ptychopinn_torch.batches import to_tensor, upload


class DevicePool:
    """The arrays of a `RandomPool` on the device; only new ones are uploaded."""

    def __init__(self, pool: RandomPool, shape: tuple[int, ...], device: torch.device) -> None:
        self.arrays = torch.zeros((pool.size, *shape), dtype=torch.complex64, device=device)
        self._numbers: list[int | None] = [None] * pool.size

    def slots(self, numbers: IntArray) -> IntArray:
        """Slots of arrays. The arrays of a batch have consecutive numbers, so each has its own slot."""
        return numbers % len(self._numbers)

    def update(self, numbers: range, arrays: list[ComplexArray]) -> None:
        """Make these arrays available."""
        for number, array in zip(numbers, arrays, strict=True):
            slot = number % len(self._numbers)
            if self._numbers[slot] != number:
                self.arrays[slot] = upload(array, self.arrays.device)
                self._numbers[slot] = number


@dataclass(frozen=True, eq=False)
class _Prepared:
    """The host's part of a batch: the arrays to draw from, and the windows."""

    step: int
    objects: list[ComplexArray]
    probes: list[ComplexArray]
    windows: Tensor  # (b, 3) int64: first pixel in the pool, and the steps to the next row and column
    dose: Tensor | None
    probe_slots: Tensor | None
    seed: int  # of the noise


class SimulatedPatterns:
    """Simulated batches; a `ptychopinn.training.sources.BatchPart`.

    The host makes all random choices except the noise, as `ObjectStream.batch` does. ``source`` has the stream, and
    says how long an epoch is.
    """

    on_host = True

    @staticmethod
    def bytes_of(stream: ObjectStream) -> int:
        """Size of the objects and probes of a stream on the device, bytes."""
        probes = 0 if stream.probes is None else stream.probes.size * stream.probe.size
        pixels = stream.objects.size * stream.object_size_px**2 + probes
        return pixels * np.dtype(np.complex64).itemsize

    def __init__(self, source: EpochSource, device: torch.device) -> None:
        if source.stream is None:
            raise TypeError("these batches have no simulated patterns")
        self._source, self._stream, self._device = source, source.stream, device
        self._library = TorchLibrary(device, deterministic=True)
        stream, size = self._stream, self._stream.object_size_px
        self._objects = DevicePool(stream.objects, (size, size), device)
        self._probes = None
        if stream.probes is not None:
            self._probes = DevicePool(stream.probes, stream.probe.shape, device)
        self._probe = to_tensor(stream.probe, device)
        self._good = to_tensor(np.fft.ifftshift(~stream.bad_pixels).astype(np.float32), device)
        self._pixels = torch.arange(stream.probe.shape[-1], device=device)
        count = source.simulated_patterns
        self._share = torch.full((count,), 1 / count, device=device)
        self._noise = torch.Generator(device)

    def prepare(self, epoch: int, number: int) -> _Prepared:
        """The objects and probes that a batch draws from, and where its windows lie."""
        step = self._source.step(epoch, number)
        stream = self._stream
        drawn, rng = stream.draw(step, self._source.simulated_patterns)
        slots = None
        if self._probes is not None and drawn.probes is not None:
            slots = self._upload(self._probes.slots(drawn.probes))
        return _Prepared(
            step=step,
            objects=stream.objects.take(step),
            probes=[] if stream.probes is None else stream.probes.take(step),
            windows=self._upload(_strides(drawn, self._objects.slots(drawn.objects), stream)),
            dose=None if drawn.dose is None else self._upload(drawn.dose),
            probe_slots=slots,
            seed=int(rng.integers(1 << 62)),
        )

    def _upload(self, array: AnyArray) -> Tensor:
        return upload(array, self._device)

    def make(self, prepared: _Prepared) -> Batch:
        """The patterns of a batch."""
        stream = self._stream
        self._objects.update(stream.objects.numbers(prepared.step), prepared.objects)
        first, down, along = prepared.windows.T[..., None, None]
        windows = self._objects.arrays.view(-1)[first + down * self._pixels[:, None] + along * self._pixels]
        probes = self._probe
        tensors: dict[str, Tensor] = {}
        if self._probes is not None and stream.probes is not None and prepared.probe_slots is not None:
            self._probes.update(stream.probes.numbers(prepared.step), prepared.probes)
            probes = self._probes.arrays[prepared.probe_slots]
            tensors["simulated_probe"] = probes / math.sqrt(stream.mean_counts)
        n, margin = stream.patch_size, (stream.probe.shape[-1] - stream.patch_size) // 2
        tensors["simulated_truth"] = windows[:, margin : margin + n, margin : margin + n].contiguous()
        tensors["simulated_counts"] = self._counts(windows, probes, prepared)
        tensors["simulated_share"] = self._share
        return Batch(tensors, self._source.simulated_patterns)

    def _counts(self, windows: Tensor, probes: Tensor, prepared: _Prepared) -> Tensor:
        """(b, N, N) float32 counts with DC at [0, 0] of (b, N, N) windows under (..., modes, N, N) probes."""
        mean = window_counts(windows, probes.unbind(-3), self._library)
        self._noise.manual_seed(prepared.seed)
        if prepared.dose is None:
            return torch.poisson(mean, self._noise) * self._good
        return torch.poisson(mean * prepared.dose, self._noise) / prepared.dose * self._good


def _strides(drawn: WindowDraw, slots: IntArray, stream: ObjectStream) -> IntArray:
    """Index of the first pixel of each window in the flattened pool, and its row and column strides: (b, 3) int64.

    A transposed or flipped window has the same pixels with other strides.
    """
    size, last = stream.object_size_px, stream.probe.shape[-1] - 1
    transposed = (drawn.turns & 1).astype(bool)
    down, along = np.where(transposed, 1, size), np.where(transposed, size, 1)
    up, back = (drawn.turns & 2).astype(bool), (drawn.turns & 4).astype(bool)
    first = (slots * size + drawn.corners[:, 0]) * size + drawn.corners[:, 1]
    first = first + np.where(up, last * down, 0) + np.where(back, last * along, 0)
    return np.stack([first, np.where(up, -down, down), np.where(back, -along, along)], axis=1)
