"""Batches too large for the memory: cut into parts whose losses and gradients are summed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from ptychopinn.errors import ResourceError

_log = logging.getLogger(__name__)
T = TypeVar("T")


class MicroBatches:
    """Into how many parts a training cuts its batches; twice as many whenever one does not fit into memory.

    Every term of the loss is a sum over patterns or groups, each times its share of the whole batch
    (`ptychopinn.training.shares`); so the sum over parts is the same to rounding, however many there are.

    Parameters
    ----------
    out_of_memory:
        Tells whether an exception means that memory ran out.

    Attributes
    ----------
    count:
        Parts of a batch.
    """

    def __init__(self, out_of_memory: Callable[[BaseException], bool]) -> None:
        self._out_of_memory = out_of_memory
        self.count = 1

    def compute(self, summed: Callable[[int], T], size: int) -> T:
        """What ``summed`` makes of a batch in as many parts as it needs.

        Parameters
        ----------
        summed:
            Number of parts to a result; whatever else it changes must be the same when it is called again.
        size:
            Groups, or single patterns, that the batch can be cut into.

        Raises
        ------
        ResourceError
            If not even one at a time fits.
        """
        while True:
            try:
                return summed(min(self.count, size))
            except Exception as error:
                if not (isinstance(error, MemoryError) or self._out_of_memory(error)):
                    raise
                if self.count >= size:
                    raise ResourceError(
                        "Memory does not suffice to train on even one group at a time.",
                        "Lower --n-filters-scale or --group-size, use --precision bf16, or free memory.",
                    ) from error
            self.count *= 2
            _log.warning("A batch of %d does not fit into memory; it is computed in %d parts.", size, self.count)
