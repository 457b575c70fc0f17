"""Stitch weighted patches into one object, and compute its coverage. There is no other stitcher.

A patch is moved from the probe's frame to whole pixels (`ptychopinn.interpolation`), weighted by the intensity of the
probe, and added. The sum is divided by the sum of the weights. For fixed phases this is linear in the patches, and the
patches may come in any order and in any batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary, slices_of
from ptychopinn.geometry import Canvas, Frame, Windows
from ptychopinn.interpolation import PatchShift, shift_basis, shift_weights
from ptychopinn.short_repr import ShortRepr
from ptychopinn.tiles import Tiling
from ptychopinn.typing import ComplexArray, FloatArray

# Coverage is in units of the brightest point of one probe. Below this only the tails of probes reach a pixel.
COVERED = 1e-3
_MIN_FACTOR = 1e-7  # singular values below this fraction of the largest are rounding errors
_CACHED = 1 << 15  # pixels of patches processed at a time; they fit the cache of a core


@dataclass(frozen=True, eq=False, repr=False)
class StitchedObject(ShortRepr):
    """A stitched object."""

    object: Array  # (H, W) complex64 of the library; 1 + 0j where nothing covers it
    coverage: Array  # (H, W) float32 of the library, the sum of weights in units of the brightest point of one probe
    frame: Frame
    # Number of patches placed, at least in part, and number of patches outside the frame.
    placed: int
    dropped: int
    library: ArrayLibrary = NUMPY

    @property
    def canvas(self) -> Canvas:
        """The object without its coverage."""
        return Canvas(self.object, self.frame, self.library)

    @property
    def covered(self) -> Array:
        """(H, W) bool: True where probes cover the object."""
        return self.coverage > COVERED


def patch_weights(probe: ComplexArray, patch_size: int) -> FloatArray:
    """Intensity of a (modes, N, N) probe over the centre of its array: (n, n) float32 with maximum 1, n <= N."""
    margin = (probe.shape[-1] - patch_size) // 2
    power: FloatArray = (np.abs(probe) ** 2).sum(axis=0)
    window = power[margin : margin + patch_size, margin : margin + patch_size]
    brightest = max(float(window.max()), float(np.finfo(np.float32).tiny))
    return (window / brightest).astype(np.float32)


class ShiftedWeights:
    """`patch_weights` shifted by fractions of a pixel as `PatchShift` does it, through a low-rank factorisation."""

    def __init__(self, weights: FloatArray, library: ArrayLibrary = NUMPY) -> None:
        self.size, self._library = int(weights.shape[-1]), library
        left, singular, right = np.linalg.svd(weights.astype(np.float64))
        self._rank = rank = max(int((singular > _MIN_FACTOR * singular[0]).sum()), 1)
        basis = shift_basis(self.size)
        factors = (left[:, :rank] * singular[:rank], right[:rank].T)
        self._rows, self._columns = (
            library.from_host((basis @ factor).reshape(len(basis), -1).astype(np.float32)) for factor in factors
        )

    @property
    def at_a_time(self) -> int:
        """Number of patches to weight at a time."""
        return self._library.batch_length(self.size**2, _CACHED)

    def at(self, fractions: Array) -> Array:
        """(b, 2) float64 fractions (y, x) to (b, n, n) float32 weights, not negative."""
        library, xp = self._library, self._library.xp
        taps = library.cast(shift_weights(fractions, library), "float32")
        shape = (-1, self.size, self._rank)
        rows = xp.reshape(library.matmul(taps[:, 0, ...], self._rows), shape)
        columns = xp.reshape(library.matmul(taps[:, 1, ...], self._columns), shape)
        return xp.clip(library.matmul(rows, xp.matrix_transpose(columns)), 0.0, None)


def coverage_of(positions: FloatArray, weights: FloatArray, tiling: Tiling) -> Array:
    """Coverage of an object by patches at (n, 2) float64 positions (y, x), as `StitchedObject.coverage`.

    The weights are `patch_weights`, the tiling is one for these positions; (H, W) float32 of the library of the object.
    """
    shifted = ShiftedWeights(weights, tiling.library)
    coverage = tiling.object_library.zeros(tiling.frame.shape, "float32")
    for tile in tiling.tiles:
        part, windows = tiling.load(tile, coverage), tiling.windows(tile, positions, shifted.size)
        for block in slices_of(len(windows), shifted.at_a_time):
            some = windows[block]
            part = some.add(part, shifted.at(some.fractions))
        coverage = tiling.store(tile, coverage, part)
    return coverage


class Stitcher:
    """Adds patches with their `patch_weights` to an object, batch by batch. Memory is needed for the object only."""

    def __init__(self, weights: FloatArray, frame: Frame, library: ArrayLibrary = NUMPY) -> None:
        self._library = library
        self.weights = ShiftedWeights(weights, library)  # of patches on whole pixels
        self._shift = PatchShift(self.weights.size, library)
        self.frame = frame
        self._sum = library.zeros(frame.shape, "complex64")
        self._coverage = library.zeros(frame.shape, "float32")
        self._placed: Array = 0
        self._count = 0

    @classmethod
    def from_stitched(cls, stitched: StitchedObject, weights: FloatArray) -> Stitcher:
        """A stitcher that continues from an object of NumPy arrays. It reuses these arrays."""
        stitcher = cls(weights, Frame((0, 0), stitched.frame.origin))
        stitcher.frame, stitcher._coverage = stitched.frame, stitched.coverage
        stitcher._sum = stitched.object
        stitcher._sum *= stitched.coverage
        stitcher._placed, stitcher._count = stitched.placed, stitched.placed + stitched.dropped
        return stitcher

    def cut(self, windows: Windows) -> tuple[Array, Array]:
        """The object so far in windows: (b, n, n) complex64, and (b, n, n) bool, True where it is covered."""
        xp = self._library.xp
        coverage = windows.cut(self._coverage, outside=0.0)
        covered = coverage > COVERED
        obj = windows.cut(self._sum, outside=0.0) / xp.where(covered, coverage, xp.ones_like(coverage))
        return xp.where(covered, obj, xp.zeros_like(obj)), covered

    def grow(self, frame: Frame) -> None:
        """Enlarge the frame. The new frame contains the present one."""
        if frame == self.frame:
            return
        library = self._library
        here, there = frame.overlap(self.frame)
        total, coverage = library.zeros(frame.shape, "complex64"), library.zeros(frame.shape, "float32")
        self._sum = library.put(total, here, self._sum[there])
        self._coverage = library.put(coverage, here, self._coverage[there])
        self.frame = frame

    def add(self, patches: Array, positions: FloatArray, phases: ComplexArray | None = None) -> None:
        """Add (b, n, n) complex64 patches that are sampled in the probe's frame, as backends predict them.

        Positions are (b, 2) float64 (y, x) on the host; patches are divided by phases, (b,) complex of modulus 1 on the
        host.
        """
        windows = Windows.at(positions, self.weights.size, self.frame, self._library)
        for block in slices_of(len(windows), self._shift.at_a_time):
            placed = self._shift(patches[block, ...], windows[block].fractions)
            self.add_placed(placed, windows[block], None if phases is None else phases[block])

    def add_placed(self, placed: Array, windows: Windows, phases: ComplexArray | None = None) -> None:
        """Add (b, n, n) complex64 patches that are on whole pixels, from `PatchShift`; phases as in `add`."""
        for block in slices_of(len(windows), self.weights.at_a_time):
            weights = self.weights.at(windows[block].fractions)
            weighted = placed[block, ...] * weights
            if phases is not None:
                weighted *= phase_factors(phases[block], self._library)
            self.add_weighted(weighted, weights, windows[block])

    def add_weighted(self, weighted: Array, weights: Array | None, windows: Windows) -> None:
        """Add patches that are multiplied by their weights: (b, n, n) complex64 and float32.

        Without weights, coverage is not summed, because another stitcher of the same patches sums it.
        """
        xp = self._library.xp
        self._sum = windows.add(self._sum, weighted)
        if weights is not None:
            self._coverage = windows.add(self._coverage, weights)
        y, x = windows.corners[:, 0], windows.corners[:, 1]
        height, width = self.frame.shape
        inside = (y > -windows.size) & (y < height) & (x > -windows.size) & (x < width)
        self._placed = self._placed + xp.sum(xp.astype(inside, xp.int64))  # on the device, without waiting for it
        self._count += len(windows)

    def add_tile(self, part: Stitcher, *, coverage: bool = True) -> None:
        """Add the sums of a tile, which may be on a device, to these NumPy arrays; its coverage on request."""
        here, there = self.frame.overlap(part.frame)
        arrays = [(self._sum, part._sum), (self._coverage, part._coverage)]
        for mine, other in arrays if coverage else arrays[:1]:
            mine[here] += part._library.to_host(other)[there]
        self._placed += int(part._placed)
        self._count += part._count

    def result(self) -> StitchedObject:
        """The object so far. More patches can be added."""
        xp = self._library.xp
        total, coverage = (xp.asarray(array, copy=True) for array in (self._sum, self._coverage))
        return self._stitched(total, coverage)

    def take_result(self, coverage: Array | None = None) -> StitchedObject:
        """The object, in the memory of the sums. Afterwards no patch can be added.

        ``coverage`` is that of the same patches, if this stitcher did not sum it.
        """
        total, self._sum = self._sum, None
        return self._stitched(total, self._coverage if coverage is None else coverage)

    def _stitched(self, total: Array, coverage: Array) -> StitchedObject:
        xp = self._library.xp

        def divide(values: Array, weights: Array) -> Array:
            covered = weights > COVERED
            values /= xp.where(covered, weights, xp.ones_like(weights))
            return xp.where(covered, values, xp.ones_like(values))

        obj = self._library.by_rows(divide, total, coverage)
        placed = int(self._placed)
        return StitchedObject(obj, coverage, self.frame, placed, self._count - placed, self._library)


def phase_factors(phases: ComplexArray, library: ArrayLibrary = NUMPY) -> Array:
    """(b,) phases on the host, to the (b, 1, 1) complex64 factors that divide patches by them."""
    return library.from_host(phases.conj().astype(np.complex64))[:, None, None]
