"""Resolution and detector sampling of each iteration of the fast network.

If the patch is narrower than the pattern, the pattern is oversampled. At half the width, for example, every second
pixel of the detector is exactly the discrete Fourier transform of the patch, so transforms of a quarter of the size
suffice. Each iteration uses other pixels, so that together they use all. The first iterations use wider pixels of the
object and only the centre of the pattern.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ptychopinn.config.model import ModelConfig
from ptychopinn.training.constants import GRID, WIDTH

_FEATURES = 64  # pixels: only the iterations use pixels further out


@dataclass(frozen=True)
class DetectorSampling:
    """Resolution and detector pixels of one iteration."""

    # Widths in pixels of the used centre of the pattern, and of the patch. Both are smaller than the model's by the
    # factor by which a pixel of the object is wider.
    N: int
    n: int
    offset: tuple[int, int]  # (y, x) of the used pixel in each cell of ``stride`` x ``stride`` pixels; DC is at (0, 0)

    @property
    def stride(self) -> int:
        """Distance of the used detector pixels, the largest without loss of information."""
        return self.N // self.n

    @property
    def pixels(self) -> tuple[slice, slice]:
        """The used detector pixels, (y, x) indices into a picture (N, N)."""
        y, x = self.offset
        return slice(y, None, self.stride), slice(x, None, self.stride)

    @property
    def tile(self) -> int:
        """Width in pixels of the tiles, ``GRID`` along a side, that the patch is cut into."""
        return self.n // GRID


def sampling_schedule(config: ModelConfig) -> tuple[DetectorSampling, ...]:
    """The sampling of every iteration, from the coarsest resolution to the patch's own."""
    seen: Counter[int] = Counter()
    found = []
    for left in reversed(range(config.steps)):
        factor = min(2 ** (left // config.steps_a_resolution), config.patch_size // GRID)
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
    """Width in pixels of the centre of the pattern from which the network computes its initial features."""
    return min(config.N, _FEATURES)


def network_width(config: ModelConfig) -> int:
    """The number of features of each grid cell."""
    return max(8, 8 * round(WIDTH * config.width_scale / 8))
