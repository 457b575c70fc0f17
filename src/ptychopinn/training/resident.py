"""A scan that stays on the device: its groups are gathered there by index."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.data.batches import GroupBatches
from ptychopinn.data.patterns import Patterns, stored_dtype
from ptychopinn.failures import IsOutOfMemory
from ptychopinn.training.shares import loss_shares
from ptychopinn.training.sources import Batch, MemoryBudget
from ptychopinn.typing import AnyArray

_log = logging.getLogger(__name__)
_BLOCK_PATCHES = 1024  # known patches that are uploaded at a time
_MIB = 1 << 20

Gather: TypeAlias = Callable[[Mapping[str, Array], int], dict[str, Array]]
"""What `epoch_arrays` are on a device, and the number of a batch, to the tensors of that batch."""


def resident_bytes(groups: GroupBatches) -> int:
    """Bytes that the patterns of a scan, and its known patches, take on the device."""
    data = groups.data
    truth = groups.truth(np.zeros(1, np.int64))
    patch = 0 if truth is None else truth.nbytes
    return len(data) * (data.N**2 * stored_dtype(data).itemsize + patch)


def epoch_arrays(groups: GroupBatches, epoch: int) -> tuple[dict[str, AnyArray], list[int]]:
    """The groups of an epoch in batches of one size; what fills up the last one has no share in the loss.

    Returns
    -------
    Arrays (batches, groups of a batch, ...) by name: ``patterns``, the numbers of the members, the other fields of
    `ptychopinn.data.batches.GroupLayout`, the shares, and, where some members are not there, ``there``, 0 for those;
    and the number of patterns in each batch.
    """
    drawn = groups.groups(epoch)
    size, batches = groups.largest_batch, groups.batches_per_epoch
    layout = groups.layout(drawn)
    arrays: dict[str, AnyArray] = {
        "patterns": np.maximum(drawn, 0),
        "offsets": layout.offsets,
        "fractions": layout.fractions,
        "shift": layout.shift,
        "member": layout.member,
    }
    if (drawn < 0).any():
        arrays["there"] = (drawn >= 0).astype(np.float32)
    cut = {name: _pad_to_batches(array, batches, size) for name, array in arrays.items()}
    shares = [loss_shares({"member": member}) for member in cut["member"]]
    cut |= {name: np.stack([share[name] for share in shares]) for name in shares[0]}
    return cut, [int(member.sum()) for member in cut["member"]]


def _pad_to_batches(array: AnyArray, batches: int, size: int) -> AnyArray:
    """(n, ...) to (batches, size, ...), zeros at the end."""
    filled = np.zeros((batches * size, *array.shape[1:]), array.dtype)
    filled[: len(array)] = array
    return filled.reshape(batches, size, *array.shape[1:])


class ResidentGroups:
    """Batches of a scan's groups; a `ptychopinn.training.sources.BatchPart`.

    The groups of an epoch are drawn as indices by the core, and uploaded once. The device of the library has room for
    the scan; ``compiled`` makes a function of a device faster.
    """

    on_host = False

    def __init__(
        self, groups: GroupBatches, library: ArrayLibrary, compiled: Callable[[Gather], Gather] = lambda gather: gather
    ) -> None:
        self._groups, self._library = groups, library
        self._gather = compiled(_gather_from(Patterns(groups.data, library), _known_patches(groups, library)))
        self._epoch: tuple[int, dict[str, Array], list[int]] | None = None

    def prepare(self, epoch: int, number: int) -> tuple[int, int]:
        """Nothing: only these numbers are needed."""
        return epoch, number

    def make(self, prepared: tuple[int, int]) -> Batch:
        """The groups of a batch, gathered on the device."""
        epoch, number = prepared
        if self._epoch is None or self._epoch[0] != epoch:
            arrays, counts = epoch_arrays(self._groups, epoch)
            held = {name: self._library.from_host(array) for name, array in arrays.items()}
            self._epoch = epoch, held, counts
        _, held, counts = self._epoch
        return Batch(self._gather(held, number), counts[number])


def _known_patches(groups: GroupBatches, library: ArrayLibrary) -> Array | None:
    """(n, ps, ps) complex64 of the library, ps the patch size; None where none are known."""
    count, blocks = len(groups.data), []
    for start in range(0, count, _BLOCK_PATCHES):
        truth = groups.truth(np.arange(start, min(start + _BLOCK_PATCHES, count)))
        if truth is None:
            return None
        blocks.append(library.from_host(truth))
    return library.xp.concat(blocks)


def _gather_from(patterns: Patterns, truth: Array | None) -> Gather:
    xp = patterns.library.xp

    def gather(held: Mapping[str, Array], number: int) -> dict[str, Array]:
        batch = {name: array[number] for name, array in held.items()}
        chosen = batch.pop("patterns")
        counts = patterns.gather(chosen)
        if "there" in batch:
            counts *= batch.pop("there")[:, :, None, None]
        batch["counts"] = counts
        if truth is not None:
            patches = xp.take(truth, xp.reshape(chosen, (-1,)), axis=0)
            batch["truth"] = xp.reshape(patches, (*chosen.shape, *patches.shape[1:]))
        return batch

    return gather


def keep_groups(
    groups: GroupBatches,
    library: ArrayLibrary,
    budget: MemoryBudget,
    is_out_of_memory: IsOutOfMemory,
    compiled: Callable[[Gather], Gather] = lambda gather: gather,
) -> ResidentGroups | None:
    """The groups of a scan on a device; None, with a line in the log, where there is no room for them.

    What the scan takes is taken from the budget. ``is_out_of_memory`` says whether an exception means that memory ran
    out all the same.
    """
    needed, name = resident_bytes(groups), groups.data.name
    if budget.take(needed):
        try:
            resident = ResidentGroups(groups, library, compiled)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            budget.left += needed
        else:
            _log.info("The patterns of '%s' stay on %s: %.0f MiB.", name, library, needed / _MIB)
            return resident
    if budget.in_use:
        _log.info(
            "The patterns of '%s' are read batch by batch: %.0f MiB do not fit on %s.", name, needed / _MIB, library
        )
    return None
