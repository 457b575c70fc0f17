"""An object follows positions that move together.

An object that is made at wrong positions is displaced by what the positions of a neighbourhood are off by in common. If
the positions alone moved, the object would need passes to follow, and until then would pull them back. So moves ``m_j``
displace it, too:

    u(r) = sum_j |P(r - r_j)|^2 m_j / sum_j |P(r - r_j)|^2
    O(r) <- O(r - u(r))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.sparse as sparse

from ptychopinn.arrays import Array, ArrayLibrary, slices_of
from ptychopinn.typing import AnyArray, FloatArray, IntArray

_CELLS = 16  # cells along a side of a window, because what neighbours have in common is smooth
_REGULARISATION = 0.05  # of the denominator, relative to its maximum
_MIN_PX = 0.02  # smaller displacements are left to the passes
_BLOCK_VALUES = 1 << 20  # pixels displaced at a time


@dataclass(frozen=True, eq=False)
class Displacement:
    """A smooth displacement of an object, on a grid.

    Attributes
    ----------
    field:
        (2, h, w) float64 (y, x), pixels, on the host.
    spacing:
        Distance of the grid's nodes, pixels. The first one is that far outside the object.
    """

    field: FloatArray
    spacing: int

    @classmethod
    def of_moves(cls, local: FloatArray, moves: FloatArray, light: AnyArray, shape: tuple[int, int]) -> Displacement:
        """The field u of moves.

        Parameters
        ----------
        local:
            (n, 2) float64 (y, x), positions in pixels of the object; no window leaves it.
        moves:
            (n, 2) float64 (y, x), pixels.
        light:
            (N, N) intensity of the probe, on the host.
        shape:
            Of the object.
        """
        spacing = max(light.shape[0] // _CELLS, 1)
        kernel = _sum_cells(light, spacing)
        height, width = (scipy.fft.next_fast_len(math.ceil(pixels / spacing) + 3) for pixels in shape)
        # From the node of the first cell of each window.
        spread = _linear(local / spacing + 1 - (len(kernel) - 1) / 2, (height, width))
        spectrum = scipy.fft.fft2(kernel, (height, width))
        sums = [
            scipy.fft.ifft2(scipy.fft.fft2((spread.T @ values).reshape(height, width)) * spectrum).real
            for values in (np.ones(len(local)), moves[:, 0], moves[:, 1])
        ]
        share = (1 - _REGULARISATION) * sums[0] + _REGULARISATION * sums[0].max()
        return cls(np.stack(sums[1:]) / share, spacing)

    @property
    def matters(self) -> bool:
        """Whether it is large enough to be worth its time."""
        return float(np.abs(self.field).max()) >= _MIN_PX

    def apply(self, array: Array, library: ArrayLibrary) -> Array:
        """Displace an (H, W) complex64 array of a library, in place where the library can: a step may be recorded."""
        xp, (height, width) = library.xp, array.shape
        reach = math.ceil(np.abs(self.field).max()) + 2
        moved = xp.zeros_like(array)
        columns = np.arange(width)
        for part in slices_of(height, max(_BLOCK_VALUES // width, 1)):
            rows = np.clip(np.arange(part.start - reach, part.stop + reach), 0, height - 1)
            down, right = (self._at(values, rows, columns, library) for values in self.field)
            values = _shift(library.take(array, rows), right, reach, 1, library)
            values = _shift(values, down, reach, 0, library)
            moved = library.put(moved, (part, ...), values[reach:-reach, :])
        return library.put(array, (...,), moved)

    def _at(self, values: FloatArray, rows: IntArray, columns: IntArray, library: ArrayLibrary) -> Array:
        """(h, w) values of the grid at some rows and columns of the object, float32 of the library."""
        for axis, pixels in enumerate((rows, columns)):
            place = pixels / self.spacing + 1
            node = np.floor(place).astype(np.int64)
            share = np.expand_dims(place - node, 1 - axis)
            values = (1 - share) * values.take(node, axis) + share * values.take(node + 1, axis)
        return library.from_host(values.astype(np.float32))


def _shift(array: Array, by: Array, reach: int, axis: int, library: ArrayLibrary) -> Array:
    """(h, w) complex64 at places that are ``by`` pixels lower along an axis."""
    xp, total = library.xp, 0.0
    for tap in range(-reach, reach + 1):
        total = total + _kernel(by - tap, library) * xp.roll(array, tap, axis=axis)
    return library.cast(total, "complex64")


def _kernel(x: Array, library: ArrayLibrary) -> Array:
    """Six-point cubic convolution: Keys, IEEE Trans. Acoust. Speech Signal Process. 29, 1153 (1981), eq. 24."""
    xp = library.xp
    a = xp.abs(x)
    near = (4 / 3 * a - 7 / 3) * a * a + 1
    middle = ((-7 / 12 * a + 3) * a - 59 / 12) * a + 15 / 6
    far = ((1 / 12 * a - 2 / 3) * a + 21 / 12) * a - 3 / 2
    return xp.where(a < 1, near, xp.where(a < 2, middle, xp.where(a < 3, far, xp.zeros_like(a))))


def _sum_cells(light: AnyArray, spacing: int) -> FloatArray:
    """(cells, cells) sums of the light, centred."""
    size = light.shape[0]
    cells = -(-size // spacing)
    missing = cells * spacing - size
    padded = np.pad(np.asarray(light, float), (missing // 2, missing - missing // 2))
    summed: FloatArray = padded.reshape(cells, spacing, cells, spacing).sum(axis=(1, 3))
    return summed


def _linear(places: FloatArray, shape: tuple[int, int]) -> sparse.csr_array:
    """(n, h w): weights of the four nodes around (n, 2) places on a grid."""
    node = np.clip(np.floor(places).astype(np.int64), 0, np.subtract(shape, 2))
    share = places - node
    corners = [(down, right) for down in (0, 1) for right in (0, 1)]
    columns = np.stack([(node[:, 0] + down) * shape[1] + node[:, 1] + right for down, right in corners], axis=1)
    weights = np.stack(
        [np.abs(1 - down - share[:, 0]) * np.abs(1 - right - share[:, 1]) for down, right in corners], axis=1
    )
    rows = np.repeat(np.arange(len(places)), len(corners))
    return sparse.csr_array((weights.ravel(), (rows, columns.ravel())), shape=(len(places), shape[0] * shape[1]))
