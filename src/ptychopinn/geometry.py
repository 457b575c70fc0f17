"""Windows of scan positions on an object array.

The window of a position r is N pixels wide and centred on r. ``r - (N - 1) / 2`` is split into a whole pixel, the
corner, and a fraction. Patches are cut and placed at whole pixels. The probe, or the predicted patch, is moved by the
fraction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.errors import DataError
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray

_MAX_OBJECT_PIXELS = 2**31  # 16 GiB of complex64; only positions in wrong units exceed it


def split_positions(positions: FloatArray, size: int) -> tuple[IntArray, FloatArray]:
    """Split positions into the whole-pixel corners of their windows and the remaining fractions.

    Parameters
    ----------
    positions:
        (b, 2) float64 (y, x) in object pixels, integers are pixel centres.

    Returns
    -------
    corners: (b, 2) int64, and fractions: (b, 2) float64 in [-0.5, 0.5): ``corner + fraction = r - (size - 1) / 2``.
    """
    start = np.asarray(positions, np.float64) - (size - 1) / 2
    corners = np.floor(start + 0.5)
    return corners.astype(np.int64), start - corners


@dataclass(frozen=True)
class Frame:
    """Frame of an object array: ``array[y, x]`` is the object at position ``(y + origin[0], x + origin[1])`` px."""

    shape: tuple[int, int]
    origin: tuple[int, int] = (0, 0)

    @classmethod
    def around(cls, positions: FloatArray, size: int, margin: int = 0) -> Frame:
        """The smallest frame that contains the windows of (n, 2) positions, and a margin around them, in pixels.

        Raises DataError if the frame would be too large, because the positions are not in pixels.
        """
        corners, _ = split_positions(positions, size)
        low, high = corners.min(axis=0) - margin, corners.max(axis=0) + size + margin
        height, width = (int(v) for v in high - low)
        if height * width > _MAX_OBJECT_PIXELS:
            raise DataError(
                f"The positions span {height} x {width} pixels.",
                "Positions must be in object pixels; check their unit.",
            )
        return cls((height, width), (int(low[0]), int(low[1])))

    def local(self, positions: FloatArray) -> FloatArray:
        """(n, 2) positions relative to the first pixel of the array."""
        inside: FloatArray = positions - np.asarray(self.origin)
        return inside

    def overlap(self, other: Frame) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Slices of this array and of another where the two frames overlap; empty if they do not."""
        here, there = [], []
        for k in (0, 1):
            low = max(self.origin[k], other.origin[k])
            high = max(min(self.origin[k] + self.shape[k], other.origin[k] + other.shape[k]), low)
            here.append(slice(low - self.origin[k], high - self.origin[k]))
            there.append(slice(low - other.origin[k], high - other.origin[k]))
        return (here[0], here[1]), (there[0], there[1])

    def paste(self, target: AnyArray, source: AnyArray, source_frame: Frame) -> None:
        """Copy an array of another frame into one of this frame where they overlap."""
        here, there = self.overlap(source_frame)
        target[here] = source[there]


@dataclass(frozen=True, eq=False)
class Canvas:
    """An object with its frame and its library."""

    array: Array  # (H, W) complex64
    frame: Frame
    # Library of the array: that of the host if the object does not fit in a device's memory.
    library: ArrayLibrary = NUMPY
    covered: Array | None = None  # (H, W) bool of the library, pixels that may change; None for all

    def moved_to(self, frame: Frame) -> Canvas:
        """A copy of the object in another frame; 1 outside its own."""
        library = self.library
        inside = library.xp.ones(frame.shape, dtype=library.xp.complex64, device=library.device)
        here, there = frame.overlap(self.frame)
        return Canvas(library.put(inside, here, self.array[there]), frame, library)


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of one width on an object array."""

    corners: Array  # (n, 2) int64 (y, x): first pixel of each window in the array; it may be outside
    fractions: Array  # (n, 2) float64 (y, x) in [-0.5, 0.5), the fractions of a pixel
    size: int  # width, pixels
    frame: Frame
    library: ArrayLibrary = NUMPY
    inside: bool = False  # True if no window leaves the array; False if this is not known
    # Library of the object and of the corners, if it is not ``library``: that of the host.
    object_library: ArrayLibrary | None = None

    @classmethod
    def at(cls, positions: FloatArray, size: int, frame: Frame | None = None, library: ArrayLibrary = NUMPY) -> Windows:
        """Windows centred on (n, 2) float64 positions, in a given frame or in the smallest frame.

        Raises
        ------
        DataError
            As in `Frame.around`.
        """
        frame = Frame.around(positions, size) if frame is None else frame
        corners, fractions, inside = _place(positions, size, frame)
        return cls(library.from_host(corners), library.from_host(fractions), size, frame, library, inside)

    @classmethod
    def on(cls, canvas: Canvas, positions: FloatArray, size: int, library: ArrayLibrary) -> Windows:
        """Windows on an object that may be on the host while ``library`` computes; then the host cuts them."""
        if canvas.library.on_host == library.on_host:
            return cls.at(positions, size, canvas.frame, library)
        corners, fractions, inside = _place(positions, size, canvas.frame)
        return cls(corners, library.from_host(fractions), size, canvas.frame, library, inside, canvas.library)

    def __len__(self) -> int:
        return int(self.corners.shape[0])

    def __getitem__(self, part: slice) -> Windows:
        """A slice of the windows."""
        return replace(self, corners=self.corners[part, ...], fractions=self.fractions[part, ...])

    def take(self, index: Array) -> Windows:
        """Select windows by a (b,) int64 index of the library."""
        corners, fractions = (self.library.xp.take(array, index, axis=0) for array in (self.corners, self.fractions))
        return replace(self, corners=corners, fractions=fractions)

    def cut(self, obj: Array, outside: float = 1.0) -> Array:
        """(n, size, size): the object in each window; ``outside`` where a window leaves the array."""
        there = self.library if self.object_library is None else self.object_library
        cut = there.cut_windows(obj, self.corners, self.size, None if self.inside else outside)
        return cut if self.object_library is None else self.library.from_host(cut)

    def add(self, canvas: Array, values: Array) -> Array:
        """Add (n, size, size) values, cropped at the edges, to an array; may change ``canvas``."""
        return self.library.add_windows(canvas, values, self.corners)


def _place(positions: FloatArray, size: int, frame: Frame) -> tuple[IntArray, FloatArray, bool]:
    """Corners relative to a frame, fractions, and whether no window leaves the frame."""
    corners, fractions = split_positions(positions, size)
    local = corners - np.asarray(frame.origin)
    inside = bool((local >= 0).all() and (local <= np.subtract(frame.shape, size)).all())
    return local, fractions, inside


def flat_object(frame: Frame) -> ComplexArray:
    """(H, W) complex64 of 1 + 0j: the start for an unknown object."""
    return np.ones(frame.shape, np.complex64)
