"""What each iteration of the fast network compares: at which resolution, and with which pixels of the detector.

A patch narrower than the pattern leaves the pattern oversampled: every second pixel of the detector, say, is the
discrete Fourier transform of the patch alone, exactly, and transforms of a quarter of the size do. Each iteration takes
other pixels, so that together they see them all. The first iterations solve what is coarse: pixels of the object
several times as wide, from the centre of the pattern.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ptychopinn.config.model import ModelConfig
from ptychopinn.training.constants import GRID

_ITERATIONS_PER_RESOLUTION = 2  # iterations of every resolution but the coarsest, which has the others: they cost least
_FEATURES = 64  # pixels: what lies further out is left to the iterations


@dataclass(frozen=True)
class DetectorSampling:
    """One comparison of patch and pattern.

    Attributes
    ----------
    N, n:
        Widths in pixels of the pattern's centre that is seen, and of the patch; both are less than the model's by the
        factor by which a pixel of the object is wider.
    offset:
        (y, x) of the first pixel that is seen of each cell of ``stride`` x ``stride``; DC is at (0, 0).
    """

    N: int
    n: int
    offset: tuple[int, int]

    @property
    def stride(self) -> int:
        """Pixels of the detector from one that is seen to the next: as many as the patch leaves without loss."""
        return self.N // self.n

    @property
    def tile(self) -> int:
        """Width in pixels of the tiles, ``GRID`` along a side, that the patch is cut into."""
        return self.n // GRID


def sampling_schedule(config: ModelConfig) -> tuple[DetectorSampling, ...]:
    """What every iteration compares, in order: the coarsest first, and the last ones as fine as the patch."""
    seen: Counter[int] = Counter()
    found = []
    for left in reversed(range(config.steps)):
        factor = min(2 ** (left // _ITERATIONS_PER_RESOLUTION), config.patch_size // GRID)
        N, n = config.N // factor, config.patch_size // factor  # noqa: N806
        offsets = _offsets(N // n)
        found.append(DetectorSampling(N, n, offsets[seen[factor] % len(offsets)]))
        seen[factor] += 1
    return tuple(found)


def _offsets(stride: int) -> list[tuple[int, int]]:
    """Every place in a cell of ``stride`` x ``stride`` pixels, opposite ones after each other."""
    places = [(y, x) for y in range(stride) for x in range(stride)]
    return sorted(places, key=lambda place: (sum(place) % 2, place))


def features_width(config: ModelConfig) -> int:
    """Width in pixels of the pattern's centre whose amplitudes the network is shown at first."""
    return min(config.N, _FEATURES)
