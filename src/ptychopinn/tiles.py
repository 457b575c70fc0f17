"""Objects that are larger than the memory of a device: they stay on the host, and are worked on tile by tile.

A tile is the part of an object that the windows of some patterns reach. Each pattern belongs to one tile, and the tiles
overlap by the width of a window: a core with a halo. What a tile's patterns change in its halo is written back before
the next tile is read, so neighbours see it.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.geometry import Frame, Windows, split_positions
from ptychopinn.typing import FloatArray, IntArray

_log = logging.getLogger(__name__)
PIXEL_BYTES = 56
"""Of a pixel of the object in the passes: it, two of its past, sums, light, coverage."""
_MIN_WIDTHS = 2  # of a window, across a tile: a smaller one is nearly all halo


def where_object_fits(frame: Frame, size: int, library: ArrayLibrary) -> ArrayLibrary | None:
    """Whose array an object becomes that a library works on, for windows of a width.

    Its own, if it has the memory for it and for what passes keep of it; that of the host, if it has it for tiles; None,
    if it has not even that.
    """
    budget = math.inf if library.on_host else library.budget_bytes
    if PIXEL_BYTES * math.prod(frame.shape) <= budget:
        return library
    return NUMPY if PIXEL_BYTES * (_MIN_WIDTHS * size) ** 2 <= budget else None


@dataclass(frozen=True, eq=False)
class Tile:
    """A part of an object, and the patterns that are worked on there.

    Attributes
    ----------
    frame:
        Where it lies, inside the object's frame.
    members:
        (k,) int64, ascending: the patterns, by their numbers among the positions that were given.
    """

    frame: Frame
    members: IntArray


class Tiling:
    """The tiles of an object. There is one, which is the whole object, where the object is the device's own array.

    Parameters
    ----------
    frame:
        Of the object.
    object_library:
        Whose array the object is: that of the host, if it is worked on in tiles.
    positions:
        (n, 2) float64 (y, x), object pixels.
    size:
        Width of the windows.
    library:
        That computes.
    margin:
        Pixels around the windows of a tile that these may move by.

    Attributes
    ----------
    tiles:
        Every pattern is a member of one.
    """

    def __init__(
        self,
        frame: Frame,
        object_library: ArrayLibrary,
        positions: FloatArray,
        size: int,
        library: ArrayLibrary,
        margin: int = 0,
    ) -> None:
        self.frame, self.object_library, self.library = frame, object_library, library
        self.is_whole = object_library.on_host == library.on_host
        if self.is_whole:
            self.tiles = [Tile(frame, np.arange(len(positions)))]
            return
        corners, _ = split_positions(positions, size)
        budget = library.budget_bytes
        pixels = max(budget // PIXEL_BYTES, (_MIN_WIDTHS * size) ** 2)
        parts = _split(corners, np.arange(len(positions)), size, pixels) if len(positions) else []
        self.tiles = [Tile(_inside(Frame.around(positions[part], size, margin), frame), part) for part in parts]
        _log.warning(
            "An object of %d x %d pixels does not fit in %d MiB of memory of %s: worked on in %d %s.",
            *frame.shape,
            budget >> 20,
            library,
            len(self.tiles),
            "tile" if len(self.tiles) == 1 else "tiles",
        )

    def load(self, tile: Tile, array: Array) -> Array:
        """The part of an array of the object's frame that a tile works on, in the memory of what computes."""
        if self.is_whole:
            return array
        here, _ = self.frame.overlap(tile.frame)
        return self.library.from_host(array[here])

    def store(self, tile: Tile, array: Array, part: Array) -> Array:
        """An array of the object's frame with a tile's part written back; may change ``array``."""
        if self.is_whole:
            return part
        here, _ = self.frame.overlap(tile.frame)
        return self.object_library.put(array, here, self.library.to_host(part))

    def windows(self, tile: Tile, positions: FloatArray, size: int) -> Windows:
        """Those of a tile's members on it, in the order of its members."""
        return Windows.at(positions[tile.members], size, tile.frame, self.library)


def _split(corners: IntArray, members: IntArray, size: int, pixels: int) -> list[IntArray]:
    """Members in parts whose windows reach no more than so many pixels, each a half of a part that reached more."""
    low, high = corners[members].min(axis=0), corners[members].max(axis=0)
    if math.prod((high - low + size).tolist()) <= pixels:
        return [members]
    axis = int((high - low).argmax())
    first = corners[members, axis] <= (low[axis] + high[axis]) // 2
    return [part for half in (first, ~first) for part in _split(corners, members[half], size, pixels)]


def _inside(box: Frame, frame: Frame) -> Frame:
    """The part of a box that lies in a frame, one pixel of it at the least."""
    begin, end = np.asarray(frame.origin), np.add(frame.origin, frame.shape)
    low = np.clip(box.origin, begin, end - 1)
    high = np.clip(np.add(box.origin, box.shape), low + 1, end)
    height, width = (high - low).tolist()
    return Frame((height, width), (int(low[0]), int(low[1])))
