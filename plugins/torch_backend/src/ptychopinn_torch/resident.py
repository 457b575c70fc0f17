"""A scan that stays on the device: its groups are gathered there by index."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from ptychopinn.data.batches import GroupBatches
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.rows import forget_pages
from ptychopinn.training.shares import loss_shares
from ptychopinn.typing import AnyArray
from ptychopinn_torch.batches import TensorBatch, to_tensor, upload

_BLOCK_BYTES = 1 << 26  # that are uploaded at a time


def resident_bytes(groups: GroupBatches) -> int:
    """Bytes that the patterns of a scan, and its known patches, take on the device."""
    data = groups.data
    truth = groups.truth(np.zeros(1, np.int64))
    patch = 0 if truth is None else truth.nbytes
    return (len(data) + 1) * (data.N**2 * _resident_dtype(data).itemsize + patch)


def _resident_dtype(data: ScanDataset) -> np.dtype[np.generic]:
    """The patterns' own dtype; what is as wide as float32 or wider is float32, as which the core reads it."""
    own: np.dtype[np.generic] = np.dtype(data.patterns.dtype).newbyteorder("=")
    return own if own.itemsize < 4 else np.dtype(np.float32)


class ResidentGroups:
    """Batches of a scan's groups, all of one size; of the smaller last batch the rest has no share in the loss.

    Patterns are kept in their own dtype with DC at [0, 0], followed by one of zeros that stands for nobody. The
    groups of an epoch are drawn as indices by the core, and uploaded once.

    Parameters
    ----------
    groups:
        Draws the groups.
    device:
        Where they are wanted.
    """

    def __init__(self, groups: GroupBatches, device: torch.device) -> None:
        self._groups, self._device = groups, device
        data = groups.data
        self._amplitudes = data.measurement is Measurement.AMPLITUDE
        self._counts_per_unit = data.counts_per_unit
        dtype = _resident_dtype(data)
        # Torch gathers all integers but the unsigned ones wider than a byte: those are gathered as signed ones.
        self._unsigned = dtype == np.uint16
        stored = np.dtype(np.int16) if self._unsigned else dtype
        shape = (len(data) + 1, data.N, data.N)
        self._patterns = torch.zeros(shape, dtype=to_tensor(np.empty(0, stored)).dtype, device=device)
        step = max(1, _BLOCK_BYTES // (data.N**2 * dtype.itemsize))
        for start in range(0, len(data), step):
            rows = slice(start, min(start + step, len(data)))
            block = _shifted(data, rows, dtype)
            self._patterns[rows] = to_tensor(block.view(stored), device)
        self._truth = self._known_patches(step)
        self._epoch: tuple[int, dict[str, Tensor], list[int]] | None = None

    def _known_patches(self, step: int) -> Tensor | None:
        count, blocks = len(self._groups.data), []
        for start in range(0, count, step):
            truth = self._groups.truth(np.arange(start, min(start + step, count)))
            if truth is None:
                return None
            blocks.append(to_tensor(truth, self._device))
        return torch.cat([*blocks, torch.zeros_like(blocks[0][:1])])

    def batches(self, epoch: int) -> Generator[TensorBatch, None, None]:
        """The batches of an epoch in order."""
        size = self._groups.largest_batch
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, *self._uploaded(epoch))
        _, held, patterns = self._epoch
        for number, count in enumerate(patterns):
            part = {name: tensor[number * size : (number + 1) * size] for name, tensor in held.items()}
            chosen = part.pop("patterns")
            tensors = {"counts": self._counts(chosen), **part}
            if self._truth is not None:
                tensors["truth"] = self._truth[chosen]
            yield TensorBatch(tensors, count)

    def _uploaded(self, epoch: int) -> tuple[dict[str, Tensor], list[int]]:
        """The groups of an epoch on the device, filled up to whole batches, and the patterns in each batch."""
        groups = self._groups.groups(epoch)
        size, batches = self._groups.largest_batch, self._groups.batches_per_epoch
        layout = self._groups.layout(groups)
        arrays: dict[str, AnyArray] = {
            "patterns": np.where(groups >= 0, groups, len(self._groups.data)),
            "offsets": layout.offsets,
            "fractions": layout.fractions,
            "shift": layout.shift,
            "member": layout.member,
        }
        filled = {name: _filled(array, size * batches) for name, array in arrays.items()}
        filled["patterns"][len(groups) :] = len(self._groups.data)
        members = np.split(filled["member"], batches)
        shares = [loss_shares({"member": member}) for member in members]
        filled |= {name: np.concatenate([share[name] for share in shares]) for name in shares[0]}
        tensors = {name: upload(array, self._device) for name, array in filled.items()}
        return tensors, [int(member.sum()) for member in members]

    def _counts(self, chosen: Tensor) -> Tensor:
        """(g, C) numbers of patterns to (g, C, N, N) float32 counts; this is `ScanDataset.counts` on the device."""
        found = self._patterns[chosen]
        counts = (found.view(torch.uint16) if self._unsigned else found).float()
        if self._amplitudes:
            counts = counts.square()
        return counts if self._counts_per_unit == 1.0 else counts * self._counts_per_unit


def _shifted(data: ScanDataset, rows: slice, dtype: np.dtype[np.generic]) -> AnyArray:
    """Patterns in a dtype, DC at [0, 0], 0 at bad pixels."""
    with np.errstate(over="ignore", invalid="ignore"):  # of what stands at bad pixels
        block: AnyArray = np.array(data.patterns[rows], dtype)
    forget_pages(data.patterns)
    block[:, data.bad_pixels] = 0
    return np.ascontiguousarray(np.fft.ifftshift(block, axes=(-2, -1)))


def _filled(array: AnyArray, size: int) -> AnyArray:
    found = np.zeros((size, *array.shape[1:]), array.dtype)
    found[: len(array)] = array
    return found
