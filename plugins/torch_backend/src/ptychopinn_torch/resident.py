"""Batches of a scan that is kept on the device."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from ptychopinn.data.batches import GroupBatches
from ptychopinn.data.patterns import Patterns, stored_dtype
from ptychopinn.training.shares import loss_shares
from ptychopinn.typing import AnyArray
from ptychopinn_torch.arrays import TorchLibrary
from ptychopinn_torch.batches import TensorBatch

_BLOCK_PATCHES = 1024  # known patches that are uploaded at a time


def resident_bytes(groups: GroupBatches) -> int:
    """Size of the patterns of a scan and its known patches on the device, bytes."""
    data = groups.data
    truth = groups.truth(np.zeros(1, np.int64))
    patch = 0 if truth is None else truth.nbytes
    return len(data) * (data.N**2 * stored_dtype(data).itemsize + patch)


class ResidentGroups:
    """Batches of equal size of the groups of a scan; padding of the last batch has no share in the loss.

    The indices of an epoch's groups are uploaded once. The device of ``library`` must have room for the scan.
    """

    def __init__(self, groups: GroupBatches, library: TorchLibrary) -> None:
        self._groups, self._library = groups, library
        self._patterns = Patterns(groups.data, library)
        self._truth = self._known_patches(_BLOCK_PATCHES)
        self._epoch: tuple[int, dict[str, Tensor], list[int]] | None = None

    def _known_patches(self, step: int) -> Tensor | None:
        count, blocks = len(self._groups.data), []
        for start in range(0, count, step):
            truth = self._groups.truth(np.arange(start, min(start + step, count)))
            if truth is None:
                return None
            blocks.append(self._library.from_host(truth))
        return torch.cat(blocks)

    def batches(self, epoch: int) -> Generator[TensorBatch, None, None]:
        """The batches of an epoch in order."""
        size = self._groups.largest_batch
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, *self._upload(epoch))
        _, held, patterns = self._epoch
        for number, count in enumerate(patterns):
            part = {name: tensor[number * size : (number + 1) * size] for name, tensor in held.items()}
            chosen = part.pop("patterns")
            counts = self._patterns.gather(chosen)
            if "there" in part:
                counts *= part.pop("there")[:, :, None, None]
            tensors = {"counts": counts, **part}
            if self._truth is not None:
                tensors["truth"] = self._truth[chosen]
            yield TensorBatch(tensors, count)

    def _upload(self, epoch: int) -> tuple[dict[str, Tensor], list[int]]:
        """Upload the groups of an epoch, padded to whole batches; also returns the number of patterns per batch."""
        groups = self._groups.groups(epoch)
        size, batches = self._groups.largest_batch, self._groups.batches_per_epoch
        layout = self._groups.layout(groups)
        arrays: dict[str, AnyArray] = {
            "patterns": np.maximum(groups, 0),
            "offsets": layout.offsets,
            "fractions": layout.fractions,
            "shift": layout.shift,
            "member": layout.member,
        }
        if (groups < 0).any():
            arrays["there"] = (groups >= 0).astype(np.float32)
        filled = {name: _pad(array, size * batches) for name, array in arrays.items()}
        members = np.split(filled["member"], batches)
        shares = [loss_shares({"member": member}) for member in members]
        filled |= {name: np.concatenate([share[name] for share in shares]) for name in shares[0]}
        tensors = {name: self._library.from_host(array) for name, array in filled.items()}
        return tensors, [int(member.sum()) for member in members]


def _pad(array: AnyArray, size: int) -> AnyArray:
    found = np.zeros((size, *array.shape[1:]), array.dtype)
    found[: len(array)] = array
    return found
