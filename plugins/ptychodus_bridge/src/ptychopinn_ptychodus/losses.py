"""The curve of losses that grows in the window."""

from __future__ import annotations

from collections.abc import Sequence

_LOSS_EVERY_S = 0.05
_WINDOW_SHARE = 10  # of the curve


class LossCurve:
    """The loss averaged over short stretches of batches.

    A stretch is a fiftieth of the training so far: the curve grows from the first second on, and stays short.
    """

    def __init__(self, losses: list[tuple[int, float]]) -> None:
        self._losses = losses
        self._batches, self._sum, self._count = 0, 0.0, 0
        self._start = self._last = 0.0

    def add(self, loss: float, now: float) -> None:
        """Take the loss of a batch."""
        if not self._batches:
            self._start = self._last = now
        self._batches += 1
        self._sum, self._count = self._sum + loss, self._count + 1
        if now - self._last >= max(_LOSS_EVERY_S, 0.02 * (now - self._start)):
            self._losses.append((self._batches, self._sum / self._count))
            self._sum, self._count, self._last = 0.0, 0, now


def smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours, a tenth of the curve; fewer at the ends, as many on both sides."""
    half, last = len(values) // (2 * _WINDOW_SHARE), len(values) - 1
    reaches = [min(half, number, last - number) for number in range(len(values))]
    return [sum(values[n - reach : n + reach + 1]) / (2 * reach + 1) for n, reach in enumerate(reaches)]
