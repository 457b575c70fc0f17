"""Cut a scan into tiles: rectangles of its object, each with the patterns inside and in a halo around it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptychopinn.errors import UsageError
from ptychopinn.geometry import Frame
from ptychopinn.typing import BoolArray, FloatArray, IntArray

MAX_TILE_PIXELS = 1 << 22  # of a tile whose number is chosen here: passes need some 250 MiB for it
HALO_WIDTHS = 1.5  # width of a halo in widths of a pattern; with 1 the borders of tiles differ by several times as much
_MIN_WIDTHS = 4  # its minimum width in widths of a pattern; a smaller tile is mostly halo


@dataclass(frozen=True, eq=False)
class ScanTile:
    """A tile of a scan."""

    # Its part of the object. The cores of all tiles fill the frame of the object.
    core: Frame
    frame: Frame  # the core and its halo: all that its patterns see
    members: IntArray  # (k,) int64, ascending: numbers of the patterns in core and halo
    own: BoolArray  # (k,) bool: whether each is in the core


def tile_count(frame: Frame, size: int, workers: int) -> int:
    """How many tiles an object is cut into for patterns of a width: one for each worker, more where it is large."""
    pixels = math.prod(frame.shape)
    needed = max(math.ceil(pixels / MAX_TILE_PIXELS), workers)
    return max(min(needed, pixels // (_MIN_WIDTHS * size) ** 2), 1)


def cut_scan(positions: FloatArray, size: int, count: int, margin: int = 0) -> list[ScanTile]:
    """Cut a scan into a number of tiles with equally many patterns each.

    Parameters
    ----------
    positions:
        (n, 2) float64 (y, x), pixels.
    size:
        Width of a pattern.
    margin:
        How far positions may move, pixels. All frames are so much larger.

    Raises
    ------
    UsageError
        If there are too few places for so many tiles.
    """
    whole = Frame.around(positions, size, margin)
    low, high = np.array(whole.origin), np.add(whole.origin, whole.shape)
    cores = _halves(positions, np.arange(len(positions)), low, high, count)
    return [_tile(positions, size, margin, *core) for core in cores]


def _halves(
    positions: FloatArray, members: IntArray, low: IntArray, high: IntArray, count: int
) -> list[tuple[IntArray, IntArray]]:
    """Corners of rectangles between two corners, with equally many of the members in each."""
    if count == 1:
        return [(low, high)]
    inside = positions[members]
    axis = int(np.ptp(inside, axis=0).argmax())
    first = count // 2
    place = math.ceil(np.quantile(inside[:, axis], first / count))
    before = inside[:, axis] < place
    if not before.any() or before.all():
        raise UsageError(f"{len(members)} positions cannot be cut into {count} tiles.", "Use fewer tiles.")
    middle_high, middle_low = high.copy(), low.copy()
    middle_high[axis] = middle_low[axis] = place
    return [
        *_halves(positions, members[before], low, middle_high, first),
        *_halves(positions, members[~before], middle_low, high, count - first),
    ]


def _tile(positions: FloatArray, size: int, margin: int, low: IntArray, high: IntArray) -> ScanTile:
    halo = math.ceil(HALO_WIDTHS * size)
    members = np.flatnonzero(_inside(positions, low - halo, high + halo))
    around = Frame.around(positions[members], size, margin)
    first = np.minimum(around.origin, low)
    last = np.maximum(np.add(around.origin, around.shape), high)
    return ScanTile(_frame(low, high), _frame(first, last), members, _inside(positions[members], low, high))


def _inside(positions: FloatArray, low: IntArray, high: IntArray) -> BoolArray:
    inside: BoolArray = np.all((positions >= low) & (positions < high), axis=1)
    return inside


def _frame(low: IntArray, high: IntArray) -> Frame:
    height, width = (high - low).tolist()
    return Frame((height, width), (int(low[0]), int(low[1])))
