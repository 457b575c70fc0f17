"""Measure shifts between patches, and between patches and an object, by masked normalised cross-correlation.

Source: Padfield, IEEE Trans. Image Process. 21, 2706 (2012).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter

from ptychopinn.arrays import NUMPY, slices_of
from ptychopinn.geometry import Canvas, Windows
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray, IntArray

_FAINT = 0.08  # pixels where the intensity of the probe (maximum 1) is smaller are ignored
_MIN_OVERLAP = 0.12  # minimum overlap, as a fraction of the bright part of a patch
_FULL_OVERLAP = 0.5  # a smaller overlap lowers the score, because chance correlations are larger
_CORRELATED_PIXELS = 30.0  # pixels of a patch per independent measurement
_WORK_BYTES = 1 << 28  # memory for transforms


class Shifts(NamedTuple):
    """Measured shifts of pairs: (k, 2) shifts in pixels, (k,) scores, (k, 2, 2) inverse covariances in 1/px^2."""

    shifts: FloatArray
    scores: FloatArray
    information: FloatArray


def shifts_on_object(
    canvas: Canvas, positions: FloatArray, patches: ComplexArray, probe: ComplexArray, reach: int
) -> FloatArray:
    """Register patches on an object.

    Parameters
    ----------
    positions:
        (n, 2) float64 (y, x), object pixels.
    patches, probe:
        (n, s, s) complex64, and (modes, N, N) complex64.
    reach:
        Radius of the search, pixels.

    Returns
    -------
    (n, 2) float64, pixels: shift of each position to where its patch fits the object best.
    """
    size = patches.shape[-1]
    wide = size + 2 * reach
    mask = _bright_part(probe, size)
    shifts = np.zeros((len(positions), 2))
    frame = scipy.fft.next_fast_len(wide)

    def transform(values: AnyArray) -> ComplexArray:
        spectrum: ComplexArray = scipy.fft.fft2(values.astype(np.complex64), (frame, frame), workers=-1)
        return spectrum

    def inside(spectra: ComplexArray) -> ComplexArray:
        product: ComplexArray = scipy.fft.ifft2(spectra, workers=-1)[:, : 2 * reach + 1, : 2 * reach + 1]
        return product

    mask_spectrum = transform(mask[None]).conj()
    means = (patches * mask).sum(axis=(1, 2), keepdims=True) / mask.sum()
    contrast = (patches - means) * mask
    step = np.arange(-reach, reach + 1)
    disc = step[:, None] ** 2 + step**2 <= reach**2
    for block in slices_of(len(positions), max(_WORK_BYTES // (frame**2 * 8 * 6), 1)):
        windows = Windows.on(canvas, positions[block], wide, NUMPY)
        parts = windows.cut(canvas.array)
        object_spectra, power = transform(parts), transform(np.abs(parts) ** 2)
        covariance = np.abs(inside(object_spectra * transform(contrast[block]).conj()))
        deviation = (
            inside(power * mask_spectrum).real - np.abs(inside(object_spectra * mask_spectrum)) ** 2 / mask.sum()
        )
        floor = 0.1 * np.median(deviation) + 1e-9
        score = np.where(disc, covariance / np.sqrt(np.maximum(deviation, 0.0) + floor), -1.0)
        rows = np.arange(len(score))
        at = score[:, 1:-1, 1:-1].reshape(len(score), -1).argmax(axis=1)
        y, x = at // (2 * reach - 1) + 1, at % (2 * reach - 1) + 1
        top, _ = _parabola(score, rows, y, x)
        # Windows are cut at whole pixels, so the fraction is subtracted.
        shifts[block] = np.stack([y, x], axis=1) - reach + top - windows.fractions
    return shifts


class PatchCorrelation:
    """Registers patches on each other, where the probe is bright.

    Parameters
    ----------
    patches, probe:
        (n, s, s) complex64, and (modes, N, N) complex64.
    """

    def __init__(self, patches: ComplexArray, probe: ComplexArray) -> None:
        size = patches.shape[-1]
        self.mask = mask = _bright_part(probe, size)
        # The phase of a patch is arbitrary, and the mean of all patches is an artefact of the network.
        means = (patches * mask).sum(axis=(1, 2), keepdims=True)
        contrast = patches * np.exp(-1j * np.angle(means))
        contrast -= contrast.mean(axis=0)
        contrast -= (contrast * mask).sum(axis=(1, 2), keepdims=True) / mask.sum()
        self._contrast = (contrast * mask).astype(np.complex64)
        self.width = scipy.fft.next_fast_len(2 * size)
        spectrum = self.transform(mask[None])[0]
        self.mask_spectrum = spectrum
        self.overlap = np.maximum(scipy.fft.ifft2(spectrum * spectrum.conj()).real, 0.0)
        self.variance = float(np.median((np.abs(self._contrast) ** 2).sum(axis=(1, 2))) / mask.sum())

    def transform(self, values: AnyArray) -> ComplexArray:
        """Spectra of (k, s, s) values, padded so that no shift wraps around."""
        shape = (self.width, self.width)
        spectrum: ComplexArray = scipy.fft.fft2(values.astype(np.complex64), shape, workers=-1)
        return spectrum

    def measure(self, positions: FloatArray, pairs: IntArray, reach: int) -> Shifts:
        """Shifts from the first to the second patch of (k, 2) sorted pairs, at most ``reach`` px from the expected."""
        block = max(_WORK_BYTES // (self.width**2 * 8 * 6), 16)
        parts = []
        for chosen in _blocks_of(pairs, block):
            numbers, places = np.unique(pairs[chosen].ravel(), return_inverse=True)
            correlation = _MaskedCorrelation(self, self._contrast[numbers])
            ends = places.reshape(-1, 2)
            for part in slices_of(len(chosen), block):
                expected = positions[pairs[chosen[part], 1]] - positions[pairs[chosen[part], 0]]
                parts.append(correlation.peaks(ends[part], np.round(expected).astype(np.int64), reach))
        return Shifts(*(np.concatenate(values) for values in zip(*parts, strict=True)))


class _MaskedCorrelation:
    """Masked normalised cross-correlation of patches (Padfield)."""

    def __init__(self, of: PatchCorrelation, contrast: ComplexArray) -> None:
        self._of = of
        mask = of.mask_spectrum
        self._spectra = of.transform(contrast)
        power = of.transform(np.abs(contrast) ** 2)
        overlap = np.maximum(of.overlap, 1.0)

        def along(spectra: ComplexArray) -> ComplexArray:
            product: ComplexArray = scipy.fft.ifft2(spectra, workers=-1)
            return product

        # Over the overlap at each shift: sum of the first patch, conjugate sum of the second, and squared deviations.
        self._first = along(self._spectra * mask.conj())
        self._second = along(mask * self._spectra.conj())
        first = along(power * mask.conj()).real - np.abs(self._first) ** 2 / overlap
        second = along(mask * power.conj()).real - np.abs(self._second) ** 2 / overlap
        self._first_deviation, self._second_deviation = (np.maximum(one, 1e-9) for one in (first, second))

    def peaks(self, ends: IntArray, expected: IntArray, reach: int) -> Shifts:
        """The best shift within ``reach`` of the expected one."""
        of, width = self._of, self._of.width
        first, second = ends.T
        rows = np.arange(len(ends))
        overlap = np.maximum(of.overlap, 1.0)
        product = scipy.fft.ifft2(self._spectra[first] * self._spectra[second].conj(), workers=-1)
        covariance = np.abs(product - self._first[first] * self._second[second] / overlap)
        deviation = np.sqrt(self._first_deviation[first] * self._second_deviation[second])
        # Without contrast the score would be noise: a tenth of the usual variance is added.
        score = covariance / (deviation + 0.1 * of.variance * of.overlap + 1e-12)
        share = of.overlap / of.mask.sum()
        score *= (share > _MIN_OVERLAP) * np.minimum(1.0, np.sqrt(share / _FULL_OVERLAP))
        window = np.arange(-reach, reach + 1)
        rows_at, columns_at = ((expected[:, axis, None] + window) % width for axis in (0, 1))
        near = score[rows[:, None, None], rows_at[:, :, None], columns_at[:, None, :]]
        inside = window[:, None] ** 2 + window**2 <= reach**2
        best = np.where(inside, near, -1.0).reshape(len(ends), -1)
        at = best.argmax(axis=1)
        best_score = np.minimum(best[rows, at], 1.0)
        y, x = rows_at[rows, at // len(window)], columns_at[rows, at % len(window)]
        step, _ = _parabola(score, rows, y, x)
        whole = expected + np.stack([at // len(window), at % len(window)], axis=1) - reach
        _, curvature = _parabola(covariance, rows, y, x)
        misfit = (self._first_deviation[first, y, x] + self._second_deviation[second, y, x]) / 2
        noise = misfit * (1 - np.minimum(best_score, 0.97) ** 2) / overlap[y, x] + 0.02 * of.variance
        values, axes = np.linalg.eigh(curvature / noise[:, None, None])
        information = np.einsum("bik,bk,bjk->bij", axes, np.maximum(values, 0.0), axes) / _CORRELATED_PIXELS
        return Shifts(whole + step, best_score, information)


def _parabola(values: FloatArray, rows: IntArray, y: IntArray, x: IntArray) -> tuple[FloatArray, FloatArray]:
    """(b, 2) steps to the maxima of parabolas through the pixels around (y, x), and (b, 2, 2) curvatures."""
    height, width = values.shape[1:]

    def at(dy: int, dx: int) -> FloatArray:
        neighbour: FloatArray = values[rows, (y + dy) % height, (x + dx) % width]
        return neighbour

    middle = at(0, 0)
    slope = np.stack([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)], axis=1) / 2
    down, across = 2 * middle - at(1, 0) - at(-1, 0), 2 * middle - at(0, 1) - at(0, -1)
    mixed = -(at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    determinant = down * across - mixed**2
    is_top = (down > 0) & (across > 0) & (determinant > 1e-3 * down * across)
    safe = np.where(is_top, determinant, 1.0)
    step = np.stack(
        [(across * slope[:, 0] - mixed * slope[:, 1]) / safe, (down * slope[:, 1] - mixed * slope[:, 0]) / safe], axis=1
    )
    curvature = np.stack([np.stack([down, mixed], axis=1), np.stack([mixed, across], axis=1)], axis=1)
    return np.where(is_top[:, None], step, 0.0).clip(-0.7, 0.7), curvature


def _blocks_of(pairs: IntArray, most: int) -> Iterator[IntArray]:
    """Indices of pairs, in blocks with at most ``most`` different patches (at least two)."""
    start, members = 0, set[int]()
    for number, (first, second) in enumerate(pairs.tolist()):
        members |= {first, second}
        if len(members) > max(most, 2):
            yield np.arange(start, number)
            start, members = number, {first, second}
    yield np.arange(start, len(pairs))


def _bright_part(probe: ComplexArray, size: int) -> FloatArray:
    """(size, size) float32 over the centre of the probe: 1 where it is bright, else 0."""
    intensity = (np.abs(probe) ** 2).sum(axis=0)
    low = (intensity.shape[0] - size) // 2
    smooth = gaussian_filter(intensity[low : low + size, low : low + size].astype(np.float64), size / 32)
    bright: FloatArray = (smooth > _FAINT * smooth.max()).astype(np.float32)
    return bright
