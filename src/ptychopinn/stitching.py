"""Weighted patches to one object, and how far it is covered: the only stitcher.

A patch is moved from the probe's frame to whole pixels (`ptychopinn.interpolation`), weighted by the intensity of the
probe that saw it, added, and the sum is divided by the weights. For fixed phases this is linear in the patches, and
patches may come in any order and any batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychopinn.errors import DataError
from ptychopinn.forward import add_windows
from ptychopinn.interpolation import place_on_pixels, product_alone, shift_basis, shift_weights, split_positions
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray, IntArray

# Coverage is in units of the brightest point of one probe. Below this a pixel was seen by nothing but tails.
COVERED = 1e-3
_FACTORS = 1e-7  # of the largest singular value of the weights: what is smaller is rounding
_CACHED = 1 << 15  # pixels of patches handled at a time: they fit a core's cache
_MAX_OBJECT_PIXELS = 2**31  # 16 GiB of complex64: positions in wrong units reach it, real scans do not


@dataclass(frozen=True)
class Frame:
    """Where an object array lies: ``array[y, x]`` is the object at position ``(y + origin[0], x + origin[1])`` px."""

    shape: tuple[int, int]
    origin: tuple[int, int] = (0, 0)

    @classmethod
    def around(cls, positions: FloatArray, size: int) -> Frame:
        """The smallest frame that holds every window of a width.

        Parameters
        ----------
        positions:
            (n, 2) float64 (y, x), object pixels.
        size:
            Width of the windows.

        Raises
        ------
        DataError
            If the frame would be absurdly large: positions in another unit than pixels.
        """
        corners, _ = split_positions(positions, size)
        low, high = corners.min(axis=0), corners.max(axis=0) + size
        height, width = (int(v) for v in high - low)
        if height * width > _MAX_OBJECT_PIXELS:
            raise DataError(
                f"The positions span {height} x {width} pixels.",
                "Positions must be in object pixels; check their unit.",
            )
        return cls((height, width), (int(low[0]), int(low[1])))


@dataclass(frozen=True, eq=False)
class Stitched:
    """A stitched object.

    Attributes
    ----------
    object:
        (H, W) complex64; 1 + 0j where nothing covers it.
    coverage:
        (H, W) float32, the sum of weights in units of the brightest point of one probe.
    frame:
        Where the array lies.
    placed, dropped:
        How many patches were placed whole or in part, and how many fell outside the frame.
    """

    object: ComplexArray
    coverage: FloatArray
    frame: Frame
    placed: int
    dropped: int

    @property
    def covered(self) -> BoolArray:
        """(H, W) bool: where the object was seen."""
        return self.coverage > COVERED


def patch_weights(probe: ComplexArray, patch_size: int) -> FloatArray:
    """Intensity of a probe over the centre of its array, brightest point 1.

    Parameters
    ----------
    probe:
        (modes, N, N) complex.
    patch_size:
        n <= N.

    Returns
    -------
    (n, n) float32.
    """
    margin = (probe.shape[-1] - patch_size) // 2
    power: FloatArray = (np.abs(probe) ** 2).sum(axis=0)
    window = power[margin : margin + patch_size, margin : margin + patch_size]
    brightest = max(float(window.max()), float(np.finfo(np.float32).tiny))
    return (window / brightest).astype(np.float32)


class ShiftedWeights:
    """The weights of patches at any fractions of a pixel: what `place_on_pixels` makes of them, by way of few factors.

    Parameters
    ----------
    weights:
        (n, n) float32, from `patch_weights`.
    """

    def __init__(self, weights: FloatArray) -> None:
        self.size = int(weights.shape[-1])
        left, singular, right = np.linalg.svd(weights.astype(np.float64))
        rank = max(int((singular > _FACTORS * singular[0]).sum()), 1)
        basis = shift_basis(self.size)
        taps = len(basis)
        self._rank = rank
        self._rows = (basis @ (left[:, :rank] * singular[:rank])).reshape(taps, -1).astype(np.float32)
        self._columns = (basis @ right[:rank].T).reshape(taps, -1).astype(np.float32)

    @property
    def at_a_time(self) -> int:
        """Patches whose weights fit a core's cache."""
        return max(_CACHED // self.size**2, 1)

    def at(self, fractions: FloatArray) -> FloatArray:
        """(b, 2) (y, x), from `split_positions`, to (b, n, n) float32, 0 or more."""
        taps = shift_weights(fractions).astype(np.float32)
        shape = (len(taps), self.size, self._rank)
        rows = product_alone(taps[:, 0], self._rows).reshape(shape)
        columns = product_alone(taps[:, 1], self._columns).reshape(shape)
        weights = product_alone(rows, columns.transpose(0, 2, 1))
        return np.maximum(weights, 0, out=weights)


def divisors(phases: ComplexArray) -> ComplexArray:
    """(b,) phases that patches are divided by, to the (b, 1, 1) complex64 that they are multiplied by."""
    factors: ComplexArray = phases.conj().astype(np.complex64)[:, None, None]
    return factors


def coverage_of(positions: FloatArray, weights: FloatArray, frame: Frame) -> FloatArray:
    """How far patches at some positions cover an object.

    Parameters
    ----------
    positions:
        (n, 2) float64 (y, x), object pixels.
    weights:
        (n, n) float32, from `patch_weights`.
    frame:
        Where the object lies.

    Returns
    -------
    (H, W) float32, as `Stitched.coverage`.
    """
    shifted, coverage = ShiftedWeights(weights), np.zeros(frame.shape, np.float32)
    for low in range(0, len(positions), shifted.at_a_time):
        corners, fractions = split_positions(positions[low : low + shifted.at_a_time], shifted.size)
        add_windows(coverage, shifted.at(fractions), corners - np.array(frame.origin))
    return coverage


class Stitcher:
    """Adds patches to an object, batch by batch; memory is that of the object.

    Parameters
    ----------
    weights:
        (n, n) float32, from `patch_weights`.
    frame:
        Where the object lies.
    coverage:
        (H, W) float32 of the same patches and frame where it is known already; it is then not added up again.
    """

    def __init__(self, weights: FloatArray, frame: Frame, coverage: FloatArray | None = None) -> None:
        self.weights = ShiftedWeights(weights)  # of any patch, where it was put on whole pixels
        self._frame = frame
        self._sum = np.zeros(frame.shape, np.complex64)
        self._known = coverage is not None
        self._coverage = np.zeros(frame.shape, np.float32) if coverage is None else coverage
        self._placed = 0
        self._dropped = 0

    @property
    def frame(self) -> Frame:
        """Where the object lies."""
        return self._frame

    @property
    def coverage(self) -> FloatArray:
        """(H, W) float32 so far, not to be changed; what is added changes it."""
        return self._coverage

    @classmethod
    def after(cls, stitched: Stitched, weights: FloatArray) -> Stitcher:
        """A stitcher that goes on from an object; takes its arrays over."""
        stitcher = cls(weights, Frame((0, 0), stitched.frame.origin))
        stitcher._frame, stitcher._coverage = stitched.frame, stitched.coverage
        stitcher._sum = stitched.object
        stitcher._sum *= stitched.coverage
        stitcher._placed, stitcher._dropped = stitched.placed, stitched.dropped
        return stitcher

    def windows(self, corners: IntArray) -> tuple[ComplexArray, BoolArray]:
        """The object so far in patches' windows: (b, n, n) complex64 and (b, n, n) bool, where it is covered."""
        n = self.weights.size
        obj, covered = np.zeros((len(corners), n, n), np.complex64), np.zeros((len(corners), n, n), bool)
        height, width = self._frame.shape
        for number, (y, x) in enumerate((corners - np.array(self._frame.origin)).tolist()):
            y0, y1, x0, x1 = max(y, 0), min(y + n, height), max(x, 0), min(x + n, width)
            if y0 < y1 and x0 < x1:
                coverage = self._coverage[y0:y1, x0:x1]
                inside = (number, slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
                covered[inside] = coverage > COVERED
                np.divide(self._sum[y0:y1, x0:x1], coverage, out=obj[inside], where=covered[inside])
        return obj, covered

    def grow(self, frame: Frame) -> None:
        """Go on in a larger frame, which holds the present one."""
        if frame == self._frame:
            return
        y, x = (self._frame.origin[k] - frame.origin[k] for k in (0, 1))
        height, width = self._frame.shape
        for name in ("_sum", "_coverage"):
            old = getattr(self, name)
            new = np.zeros(frame.shape, old.dtype)
            new[y : y + height, x : x + width] = old
            setattr(self, name, new)
        self._frame = frame

    def add(self, patches: ComplexArray, positions: FloatArray, phases: ComplexArray | None = None) -> None:
        """Place patches that are sampled in the probe's frame, as backends predict them.

        Parameters
        ----------
        patches:
            (b, n, n) complex64.
        positions:
            (b, 2) float64 (y, x), object pixels.
        phases:
            (b,) complex of modulus 1 to divide the patches by, or None.
        """
        corners, fractions = split_positions(positions, self.weights.size)
        self.add_placed(place_on_pixels(patches, fractions), corners, fractions, phases)

    def add_placed(
        self, placed: ComplexArray, corners: IntArray, fractions: FloatArray, phases: ComplexArray | None = None
    ) -> None:
        """Add patches that lie on whole pixels already.

        Parameters
        ----------
        placed:
            (b, n, n) complex64, from `place_on_pixels`.
        corners, fractions:
            (b, 2) each, from `split_positions`.
        phases:
            As in `add`.
        """
        for low in range(0, len(placed), self.weights.at_a_time):
            block = slice(low, low + self.weights.at_a_time)
            weights = self.weights.at(fractions[block])
            weighted = placed[block] * weights
            if phases is not None:
                weighted *= divisors(phases[block])
            self.add_weighted(weighted, weights, corners[block])

    def add_weighted(self, weighted: ComplexArray, weights: FloatArray, corners: IntArray) -> None:
        """Add patches that were multiplied by their weights: (b, n, n) complex64 and float32, and (b, 2)."""
        n = self.weights.size
        local = corners - np.array(self._frame.origin)
        add_windows(self._sum, weighted, local)
        if not self._known:
            add_windows(self._coverage, weights, local)
        inside = ((local > -n) & (local < np.array(self._frame.shape))).all(axis=1)
        self._placed += int(inside.sum())
        self._dropped += int((~inside).sum())

    def result(self) -> Stitched:
        """The object so far; the stitcher goes on after it."""
        covered = self._coverage > COVERED
        obj = np.ones(self._frame.shape, np.complex64)
        np.divide(self._sum, self._coverage, out=obj, where=covered)
        return Stitched(obj, self._coverage.copy(), self._frame, self._placed, self._dropped)

    def finish(self) -> Stitched:
        """The object, in the memory of the sums: nothing can be added after it."""
        covered = self._coverage > COVERED
        obj = self._sum
        np.divide(obj, self._coverage, out=obj, where=covered)
        obj[~covered] = 1
        self._sum = np.empty((0, 0), np.complex64)
        return Stitched(obj, self._coverage, self._frame, self._placed, self._dropped)
