"""NumPy batches of the core to tensors on a device, and the data loader of a training."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ptychopinn.training import EpochSource
from ptychopinn.typing import AnyArray

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def to_tensor(array: AnyArray, device: torch.device | str = "cpu") -> Tensor:
    """An array as a tensor on a device; shares memory where it can."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


@dataclass(frozen=True)
class TensorBatch:
    """One training batch: the arrays of `ptychopinn.training.EpochSource`, those that there are."""

    counts: Tensor | None = None
    offsets: Tensor | None = None
    fractions: Tensor | None = None
    shift: Tensor | None = None
    member: Tensor | None = None
    truth: Tensor | None = None
    member_share: Tensor | None = None
    group_share: Tensor | None = None
    simulated_counts: Tensor | None = None
    simulated_truth: Tensor | None = None
    simulated_share: Tensor | None = None
    simulated_probe: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What it holds, by name."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: tensor for name, tensor in held.items() if tensor is not None}

    def to(self, device: torch.device | str) -> TensorBatch:
        """The same batch on a device."""
        return TensorBatch(**{k: v.to(device, non_blocking=True) for k, v in self.tensors().items()})

    def pin_memory(self) -> TensorBatch:
        """The same batch in page-locked memory; called by the data loader."""
        return TensorBatch(**{k: v.pin_memory() for k, v in self.tensors().items()})

    @property
    def size(self) -> int:
        """Into how many parts it can be cut: groups, or single patterns where there are no groups."""
        cut = self.simulated_counts if self.counts is None else self.counts
        return 0 if cut is None else len(cut)

    def cut(self, parts: int) -> list[TensorBatch]:
        """Parts of nearly the same size; all have the whole probe of the simulated patterns."""
        if parts == 1:
            return [self]
        shares = {k: v.tensor_split(parts) for k, v in self.tensors().items() if k != "simulated_probe"}
        whole = {"simulated_probe": self.simulated_probe}
        return [TensorBatch(**whole, **{k: share[part] for k, share in shares.items()}) for part in range(parts)]

    @property
    def patterns(self) -> int:
        """Patterns in it, simulated ones counted."""
        measured = 0 if self.member is None else int(self.member.sum())
        return measured + (0 if self.simulated_counts is None else len(self.simulated_counts))


class EpochDataset(IterableDataset[TensorBatch]):
    """Whole batches of one epoch after another, as tensors.

    Parameters
    ----------
    source:
        The batches as arrays.
    """

    def __init__(self, source: EpochSource) -> None:
        self._source = source
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration goes over, here and in workers."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._epoch[0] = value

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[TensorBatch]:
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for arrays in self._source(self.epoch, first, stride):
            yield TensorBatch(**{name: to_tensor(array) for name, array in arrays.items()})


def loader(dataset: EpochDataset, *, num_workers: int, pin: bool) -> DataLoader[TensorBatch]:
    """A data loader that hands batches on as they are."""
    own = torch.Generator()  # the loader seeds its workers from it; else it would draw from the caller's numbers
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,  # they keep what they have made: objects that patches are cut from
        pin_memory=pin,
        collate_fn=_identity,
        generator=own,
        worker_init_fn=_end_with_parent if num_workers else None,
    )


def _end_with_parent(worker: int) -> None:
    """Ask Linux to kill this worker when the training is killed; torch itself would look after some seconds.

    Until then the worker would hold what it inherited, the lock of the run directory too.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _identity(batch: Any) -> Any:
    return batch
