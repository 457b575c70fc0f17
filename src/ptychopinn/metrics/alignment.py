"""Remove what intensities do not determine: a translation, a linear phase ramp and a complex factor.

All of them are estimated inside the box of scan positions, where both pictures are valid. Sub-pixel registration:
Guizar-Sicairos, Thurman & Fienup, Opt. Lett. 33, 156 (2008). The ramp is the peak of ``|sum conj(g) r exp(-ikx)|``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import shift as spline_shift
from scipy.optimize import minimize
from skimage.registration import phase_cross_correlation

from ptychopinn.errors import DataError
from ptychopinn.metrics.frc import is_constant
from ptychopinn.short_repr import ShortRepr
from ptychopinn.typing import ComplexArray, FloatArray

MIN_SIDE_PX = 11  # the largest window of the metrics (SSIM with Gaussian weights)
MAX_SHIFT_PX = 40.0  # a larger shift means a failed registration; it is reported, not applied
_UPSAMPLING = 20  # registration in steps of 1/20 px
_FLAT = 1e-9  # rad: a phase picture with less contrast cannot be registered


@dataclass(frozen=True)
class ScanBox:
    """Rows ``y0 <= y < y1`` and columns ``x0 <= x < x1`` of an object array."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return max(self.y1 - self.y0, 0), max(self.x1 - self.x0, 0)

    @property
    def is_empty(self) -> bool:
        """Whether the box has no pixel."""
        return 0 in self.shape

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an (H, W) array."""
        return slice(self.y0, self.y0 + self.shape[0]), slice(self.x0, self.x0 + self.shape[1])


def scan_box(positions: FloatArray, shape: tuple[int, int], margin: int = 4) -> ScanBox:
    """The box of scan positions, less a margin.

    Parameters
    ----------
    positions:
        (n, 2) float64 (y, x), pixels of the object array itself.
    shape:
        (H, W) of the object array; the box never leaves it.
    margin:
        Pixels left out at each side.

    Returns
    -------
    ScanBox
        Empty (``is_empty``) when there are no positions or they span no more than the two margins.
    """
    if len(positions) == 0:
        return ScanBox(0, 0, 0, 0)
    if not np.isfinite(positions).all():
        raise DataError("Some scan positions are not finite.", "Remove those patterns.")
    edges: list[int] = []
    for axis in (0, 1):
        # int(), not floor, as in the published definition of the scores
        first = int(positions[:, axis].min()) + margin
        last = int(positions[:, axis].max()) - margin
        low = min(max(first, 0), shape[axis])
        edges += [low, max(low, min(last, shape[axis]))]
    return ScanBox(*edges)


@dataclass(frozen=True, eq=False, repr=False)
class Aligned(ShortRepr):
    """A reference and a reconstruction that can be compared pixel by pixel."""

    # (h, w) complex128, both cut to the box.
    reference: ComplexArray
    reconstruction: ComplexArray
    # (y, x) by which the reconstruction was moved. A shift above 40 px is reported but not applied.
    shift_px: tuple[float, float]
    ramp_rad_per_px: tuple[float, float]  # (y, x) phase ramp that was removed from the reconstruction
    # Complex factor the reconstruction was then multiplied by; phases of the ramp are counted from the first pixel of
    # the box.
    factor: complex
    registered: bool  # False if registration was off, impossible (a flat picture), or failed (above 40 px)
    not_finite: int  # number of pixels of the reconstruction in the box that are not finite and were set to 0


def align(
    reference: ComplexArray,
    reconstruction: ComplexArray,
    box: ScanBox,
    *,
    remove_ramp: bool = True,
    register: bool = True,
) -> Aligned:
    """Align a reconstruction with a reference by removing the ambiguities of ptychography.

    Parameters
    ----------
    reference:
        (H, W) complex; finite inside the box.
    reconstruction:
        (H', W') complex. If the shape differs, it is cropped or padded with zeros about its centre. Values that are
        not finite count as zero.
    box:
        The region to compare, in pixels of the reference; at least 11 x 11.
    remove_ramp:
        Remove a linear phase ramp (object and probe were both free); a constant picture has none.
    register:
        Remove a translation (likewise).

    Returns
    -------
    Aligned
        With both switches off, only one complex factor is removed.

    Raises
    ------
    DataError
        If an array is not a picture, the box is too small or outside, or the reference is zero or not finite
        there.
    """
    _check(reference, reconstruction, box)
    cut = box.slices
    whole = _centred(np.asarray(reconstruction, np.complex128), reference.shape)
    bad = ~np.isfinite(whole)
    not_finite = int(bad[cut].sum())
    moved = np.where(bad, 0, whole)
    g = np.asarray(reference[cut], np.complex128)
    remove_ramp = remove_ramp and not is_constant(moved[cut])  # the ramp found would be the reference's

    coarse: FloatArray = np.zeros(2)
    if remove_ramp:
        coarse = _coarse_ramp(moved[cut]) - _coarse_ramp(g)
        y, x = np.indices(moved.shape)
        moved = moved * np.exp(-1j * (coarse[0] * y + coarse[1] * x))
    shift: FloatArray = np.zeros(2)
    applied, registered = shift, False
    if register:
        moved, shift, applied, registered = _register(g, moved, cut)
    r = moved[cut]
    fine: FloatArray = np.zeros(2)
    if remove_ramp:
        fine = linear_phase(r * g.conj())
        r = remove_linear_phase(r, fine)
    energy = np.vdot(r, r).real
    factor = complex(np.vdot(r, g) / energy) if energy > 0 else 0j
    # the coarse ramp was removed from the whole array, and moved with it
    coarse_phase = np.exp(-1j * (coarse @ (np.array([box.y0, box.x0]) - applied)))
    return Aligned(
        reference=g,
        reconstruction=r * factor,
        shift_px=(float(shift[0]), float(shift[1])),
        ramp_rad_per_px=(float(coarse[0] + fine[0]), float(coarse[1] + fine[1])),
        factor=complex(factor * coarse_phase),
        registered=registered,
        not_finite=not_finite,
    )


def remove_linear_phase(picture: ComplexArray, ramp_rad_per_px: FloatArray) -> ComplexArray:
    """``picture * exp(-i k x)`` with x counted from the first pixel; k is (2,) (y, x) in rad per pixel."""
    ey, ex = (np.exp(-1j * k * np.arange(n)) for k, n in zip(ramp_rad_per_px, picture.shape, strict=True))
    result: ComplexArray = picture * ey[:, None] * ex[None, :]
    return result


def linear_phase(product: ComplexArray) -> FloatArray:
    """The ramp k that maximises ``|sum product exp(-i k x)|``.

    Parameters
    ----------
    product:
        (h, w) complex, such as ``conj(reference) * reconstruction``.

    Returns
    -------
    (2,) float64 (y, x), rad per pixel. Zero for a product that is zero everywhere.
    """
    if not np.any(product):
        return np.zeros(2)
    start = _peak(product)
    rows, columns = (np.arange(n) for n in product.shape)

    def cost(k: FloatArray) -> float:
        return -float(np.abs(np.exp(-1j * k[0] * rows) @ product @ np.exp(-1j * k[1] * columns)))

    simplex = start + np.array([[0, 0], [1e-3, 0], [0, 1e-3]])
    found = minimize(cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-6})
    return np.asarray(found.x, np.float64)


def ramp_of(obj: ComplexArray) -> FloatArray:
    """The phase ramp (2,) (y, x), rad per pixel, of an (h, w) complex object, as relative to a flat reference."""
    return linear_phase(obj / np.maximum(np.abs(obj), 1e-12))


def _check(reference: ComplexArray, reconstruction: ComplexArray, box: ScanBox) -> None:
    for name, array in (("reference", reference), ("reconstruction", reconstruction)):
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fc":
            raise DataError(
                f"The {name} has the shape {array.shape} and the dtype {array.dtype}.",
                "Give a complex picture with the axes (y, x).",
            )
    height, width = reference.shape
    inside = min(box.y0, box.x0) >= 0 and box.y1 <= height and box.x1 <= width
    if not inside or min(box.shape) < MIN_SIDE_PX:
        raise DataError(
            f"The box of scan positions is {box.shape[0]} x {box.shape[1]} pixels at ({box.y0}, {box.x0}) "
            f"of a reference of {height} x {width}.",
            f"A comparison needs a box of at least {MIN_SIDE_PX} x {MIN_SIDE_PX} pixels inside the reference: "
            "check that positions and reference share one frame.",
        )
    g = reference[box.slices]
    bad = int((~np.isfinite(g)).sum())
    if bad:
        raise DataError(
            f"The reference has {bad} values that are not finite inside the box of scan positions.",
            "Give a reference that covers the box.",
        )
    if not np.any(g):
        raise DataError("The reference is zero inside the box of scan positions.", "Give another reference.")


def _centred(picture: ComplexArray, shape: tuple[int, ...]) -> ComplexArray:
    """Crop or pad a picture with zeros to a shape, about its centre."""
    out = np.zeros(shape, np.complex128)
    source, target = [], []
    for have, want in zip(picture.shape, shape, strict=True):
        offset, size = (have - want) // 2, min(have, want)
        source.append(slice(max(offset, 0), max(offset, 0) + size))
        target.append(slice(max(-offset, 0), max(-offset, 0) + size))
    out[tuple(target)] = picture[tuple(source)]
    return out


def _peak(picture: ComplexArray) -> FloatArray:
    """Frequency (y, x), rad per pixel, of the strongest Fourier component, in steps of a quarter period.

    The transform of the picture padded to four times its size, in 16 parts of the picture's own size.
    """
    best, strongest = -1.0, np.zeros(2)
    steps = [2 * np.pi / (4 * n) for n in picture.shape]
    for part in np.ndindex(4, 4):
        offset = np.array([k * step for k, step in zip(part, steps, strict=True)])
        power = np.abs(np.fft.fft2(remove_linear_phase(picture, offset)))
        index = np.unravel_index(power.argmax(), power.shape)
        if power[index] > best:
            best = float(power[index])
            bins = [np.fft.fftfreq(n)[j] for j, n in zip(index, power.shape, strict=True)]
            strongest = offset + 2 * np.pi * np.array(bins)
    return np.asarray((strongest + np.pi) % (2 * np.pi) - np.pi)


def _coarse_ramp(picture: ComplexArray) -> FloatArray:
    """The ramp of a picture, accurate enough to register two pictures by their phases."""
    window = np.outer(np.hanning(picture.shape[0]), np.hanning(picture.shape[1]))
    return _peak(picture / np.maximum(np.abs(picture), 1e-12) * window)


def _phase_about_mean(picture: ComplexArray) -> FloatArray:
    """Phases relative to that of the mean (0 for a mean of zero)."""
    phase: FloatArray = np.angle(picture * np.exp(-1j * np.angle(picture.mean() + 1e-12)))
    return phase


def _register(
    g: ComplexArray, moved: ComplexArray, cut: tuple[slice, slice]
) -> tuple[ComplexArray, FloatArray, FloatArray, bool]:
    """Register a picture by the phases inside the box, in two rounds.

    Returns the moved picture, the measured shift, the applied shift, and whether it succeeded.
    """
    applied = np.zeros(2)
    wanted = _phase_about_mean(g)
    for _ in range(2):
        seen = _phase_about_mean(moved[cut])
        if min(np.ptp(wanted), np.ptp(seen)) < _FLAT:
            return moved, applied, applied, False
        step = phase_cross_correlation(  # type: ignore[no-untyped-call]
            wanted, seen, upsample_factor=_UPSAMPLING
        )[0]
        if np.abs(step).max() > MAX_SHIFT_PX:
            return moved, applied + step, applied, False
        moved = spline_shift(moved.real, step, order=3) + 1j * spline_shift(moved.imag, step, order=3)
        applied = applied + step
    return moved, applied, applied, True
