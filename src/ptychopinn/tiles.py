"""Tiles of objects that are larger than the memory of a device.

Such an object stays on the host, and the device processes one tile after the other. A tile is the part of the object
that the windows of some patterns cover. Each pattern belongs to one tile, and tiles overlap by the width of a window: a
core with a halo. A tile is written back before the next tile is read, so neighbours see the changes in its halo.
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
"""Memory per object pixel in the passes: the object, two earlier states, sums, illumination, coverage."""
_MIN_WIDTHS = 2  # minimum width of a tile in window widths; a smaller tile is nearly all halo


def where_object_fits(frame: Frame, size: int, library: ArrayLibrary) -> ArrayLibrary | None:
    """Library that should hold an object while ``library`` computes with windows of a width.

    It is ``library`` itself if its memory suffices for the object and for the state of the passes. It is NumPy if the
    memory suffices for tiles. It is None if the memory does not suffice for a tile.
    """
    budget = math.inf if library.on_host else library.budget_bytes
    if PIXEL_BYTES * math.prod(frame.shape) <= budget:
        return library
    return NUMPY if PIXEL_BYTES * (_MIN_WIDTHS * size) ** 2 <= budget else None


@dataclass(frozen=True, eq=False)
class Tile:
    """A part of an object, and the patterns that are processed there."""

    frame: Frame  # its frame, inside that of the object
    members: IntArray  # (k,) int64, ascending: indices of the patterns in the given positions


class Tiling:
    """The tiles of an object. If the object is an array of the device, the only tile is the whole object.

    Parameters
    ----------
    object_library:
        Library of the object: that of the host if the object is processed in tiles.
    positions:
        (n, 2) float64 (y, x), object pixels.
    margin:
        Maximum displacement of the windows, pixels. Tiles are so much wider.
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
        """The part of an array of the object's frame that belongs to a tile, as an array of the computing library."""
        if self.is_whole:
            return array
        here, _ = self.frame.overlap(tile.frame)
        return self.library.from_host(array[here])

    def store(self, tile: Tile, array: Array, part: Array) -> Array:
        """Write the part of a tile back to an array of the object's frame; may change ``array``."""
        if self.is_whole:
            return part
        here, _ = self.frame.overlap(tile.frame)
        return self.object_library.put(array, here, self.library.to_host(part))

    def windows(self, tile: Tile, positions: FloatArray, size: int) -> Windows:
        """Windows of the members of a tile, in their order."""
        return Windows.at(positions[tile.members], size, tile.frame, self.library)


def _split(corners: IntArray, members: IntArray, size: int, pixels: int) -> list[IntArray]:
    """Split members in halves until the windows of each part cover at most ``pixels`` pixels."""
    low, high = corners[members].min(axis=0), corners[members].max(axis=0)
    if math.prod((high - low + size).tolist()) <= pixels:
        return [members]
    axis = int((high - low).argmax())
    first = corners[members, axis] <= (low[axis] + high[axis]) // 2
    return [part for half in (first, ~first) for part in _split(corners, members[half], size, pixels)]


def _inside(box: Frame, frame: Frame) -> Frame:
    """The part of a box that is inside a frame, at least one pixel."""
    begin, end = np.asarray(frame.origin), np.add(frame.origin, frame.shape)
    low = np.clip(box.origin, begin, end - 1)
    high = np.clip(np.add(box.origin, box.shape), low + 1, end)
    height, width = (high - low).tolist()
    return Frame((height, width), (int(low[0]), int(low[1])))
