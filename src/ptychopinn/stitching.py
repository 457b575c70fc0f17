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
from ptychopinn.interpolation import place_on_pixels, split_positions
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray, IntArray

# Coverage is in units of the brightest point of one probe. Below this a pixel was seen by nothing but tails.
COVERED = 1e-3
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


class Stitcher:
    """Adds patches to an object, batch by batch; memory is that of the object.

    Parameters
    ----------
    weights:
        (n, n) float32, from `patch_weights`.
    frame:
        Where the object lies.
    """

    def __init__(self, weights: FloatArray, frame: Frame) -> None:
        self._weights = weights
        self._frame = frame
        self._sum = np.zeros(frame.shape, np.complex64)
        self._coverage = np.zeros(frame.shape, np.float32)
        self._placed = 0
        self._dropped = 0

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
        corners, fractions = split_positions(positions, self._weights.shape[-1])
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
        n = self._weights.shape[-1]
        weights = np.broadcast_to(self._weights, (len(placed), n, n))
        weights = np.maximum(place_on_pixels(weights, fractions), 0)
        local = corners - np.array(self._frame.origin)
        turned = placed * weights if phases is None else placed * (weights * phases.conj()[:, None, None])
        add_windows(self._sum, turned.astype(np.complex64, copy=False), local)
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
