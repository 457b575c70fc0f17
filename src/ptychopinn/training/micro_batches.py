"""Split batches that do not fit into memory; losses and gradients of the parts are summed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ptychopinn.errors import ResourceError
from ptychopinn.failures import IsOutOfMemory, retry_smaller

_log = logging.getLogger(__name__)
T = TypeVar("T")


class MicroBatches:
    """Number of parts into which batches are split; doubled whenever a part does not fit into memory.

    Every term of the loss is a sum over patterns or groups weighted with their shares of the whole batch
    (`ptychopinn.training.shares`). So the sum over the parts is the same to rounding, however many there are.
    """

    def __init__(self, out_of_memory: IsOutOfMemory) -> None:
        self._out_of_memory = out_of_memory
        self.count = 1  # parts of a batch

    def compute(self, summed: Callable[[int], T], size: int) -> T:
        """Return ``summed(parts)``, and double ``parts``, up to ``size``, until the batch fits into memory.

        ``summed`` may be called again, so it must not accumulate anything.

        Raises
        ------
        ResourceError
            If not even one group fits.
        """
        return retry_smaller(lambda: summed(min(self.count, size)), partial(self._double, size), self._out_of_memory)

    def _double(self, size: int, error: Exception) -> None:
        if self.count >= size:
            raise ResourceError(
                "Memory does not suffice to train on even one group at a time.",
                "Lower --n-filters-scale or --group-size, use --precision bf16, or free memory.",
            ) from error
        self.count *= 2
        _log.warning("A batch of %d does not fit into memory and is computed in %d parts.", size, self.count)
