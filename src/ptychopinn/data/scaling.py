"""The scaling rule of scans.

The probe is scaled so that its energy is the mean count of a pattern. The object then has a mean square amplitude near
1 in the illuminated area, and everything is in counts. The input of a network is divided by the root mean square
amplitude of a detector pixel. So multiplying all counts of a scan by a constant changes neither the network's input nor
the object (dose invariance).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.fft

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.errors import DataError
from ptychopinn.forward import detector_ramp, far_field
from ptychopinn.probe_variation import ProbeVariation
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray

# The mean phase gradient of the object moves the pattern too, by some hundredths of a pixel. If so small an offset were
# attributed to the detector, the object would lose its phase ramp.
_MIN_OFFSET_PX = 0.25
_ALIKE = 0.95  # correlation of the mean pattern with the probe's far field above which they can be registered
_SAME = 0.999  # correlation of a probe with that of the scan, above which it is that
_SAMPLE = 2048  # patterns; more change the mean by less than 0.1 %


@dataclass(frozen=True, eq=False)
class Scaling:
    """Scaling of a scan."""

    mean_counts: float  # mean photons per pattern, without bad pixels
    input_scale: float  # factor from square roots of counts to the network's input (root mean square 1)
    probe_scale: float  # factor that scales the scan's probe to counts
    # (2,) float64 (y, x): shift of the patterns from the probe's far field; 0 below a quarter of a pixel.
    detector_offset_px: FloatArray


def mean_pattern(data: ScanDataset, most: int = _SAMPLE) -> FloatArray:
    """(N, N) float64 mean counts of at most ``most`` evenly spread patterns."""
    indices = evenly_spread(len(data), most)
    total = np.zeros((data.N, data.N))
    for start in range(0, len(indices), 64):
        total += data.counts(indices[start : start + 64]).sum(axis=0)  # float32 is exact enough for 64
    return total / len(indices)


def fit_scaling(data: ScanDataset, probe: ComplexArray | None = None) -> Scaling:
    """Fit the scaling rule to a scan; a part of a scan has the scaling of the whole (``data.scaling``).

    ``probe``, (modes, N, N) complex, is used instead of the scan's own.

    Raises
    ------
    DataError
        If there is no pattern, no photon, or no probe energy.
    """
    if len(data) == 0:
        raise DataError("The scan has no patterns.", "Give a scan with at least one.")
    if data.scaling is not None and probe is None:
        return data.scaling
    return scaling_of(mean_pattern(data), data.probe if probe is None else probe, data.bad_pixels)


def scaling_of(mean: FloatArray, probe: ComplexArray, bad_pixels: BoolArray) -> Scaling:
    """The scaling rule for a mean pattern.

    Parameters
    ----------
    mean:
        (N, N) float64 mean counts, 0 at bad pixels.
    probe:
        (modes, N, N) complex.
    bad_pixels:
        (N, N) bool.

    Raises
    ------
    DataError
        If there is no photon, or no probe energy.
    """
    mean_counts = float(mean.sum())
    if not np.isfinite(mean_counts) or mean_counts <= 0:
        raise DataError(
            f"The patterns hold {mean_counts:g} photons on average.", "Check the patterns and the bad-pixel mask."
        )
    # Only the energy on good pixels: that on bad pixels was never counted.
    pattern = (np.abs(far_field(probe.astype(np.complex128))) ** 2).sum(axis=0)
    seen = float(pattern[~bad_pixels].sum())
    if not np.isfinite(seen) or seen <= 0:
        raise DataError("The probe carries no energy.", "Give a probeGuess that is not zero.")
    offset = _offset(mean, np.where(bad_pixels, 0, pattern), ~bad_pixels)
    return Scaling(
        mean_counts=mean_counts,
        input_scale=len(mean) / float(np.sqrt(mean_counts)),
        probe_scale=float(np.sqrt(mean_counts / seen)),
        detector_offset_px=offset if np.hypot(*offset) >= _MIN_OFFSET_PX else np.zeros(2),
    )


def _offset(mean: FloatArray, alone: FloatArray, good: BoolArray) -> FloatArray:
    """(2,) shift (y, x) in pixels of a mean pattern from the probe's far field alone, both (N, N) and 0 at bad pixels.

    The object scatters light to one side of the aperture's image, which moves the centre of mass, but not the image. So
    the image is registered, by cross-correlation, if the two look alike. If not, the probe is not the right one, and
    the shift is that of the centres of mass.
    """
    first, second = (np.where(good, pattern - pattern[good].mean(), 0) for pattern in (mean, alone))
    spectrum = scipy.fft.rfft2(first) * np.conj(scipy.fft.rfft2(second))
    correlation: FloatArray = scipy.fft.irfft2(spectrum, s=mean.shape)
    peak = np.unravel_index(int(correlation.argmax()), mean.shape)
    if correlation[peak] < _ALIKE * np.linalg.norm(first) * np.linalg.norm(second):
        return centre_of_mass(mean) - centre_of_mass(alone)
    lines = (correlation[:, peak[1]], correlation[peak[0], :])
    return np.array([_peak(line, int(at)) for line, at in zip(lines, peak, strict=True)])


def _peak(line: FloatArray, at: int) -> float:
    """Place of the maximum of a periodic line near its highest point ``at``, from a parabola, nearest to 0."""
    before, top, after = line[at - 1], line[at], line[(at + 1) % len(line)]
    curvature = before - 2 * top + after
    place = at + (0.5 * (before - after) / curvature if curvature < 0 else 0.0)
    return float(place if place < len(line) / 2 else place - len(line))


def centre_of_mass(pattern: FloatArray) -> FloatArray:
    """(2,) centre of mass (y, x) in pixels of an (N, N) pattern."""
    index = np.arange(pattern.shape[0])
    moments = [float(pattern.sum(axis=axis) @ index) for axis in (1, 0)]
    return np.array(moments) / float(pattern.sum())


def probe_in_counts(
    data: ScanDataset, scaling: Scaling, *, follow_offset: bool, circular_mask: bool = False
) -> ComplexArray:
    """The scan's probe scaled to counts.

    Parameters
    ----------
    follow_offset:
        Multiply by the phase ramp that shifts its far field onto the patterns.
    circular_mask:
        Set it to zero outside a circle of diameter N.

    Returns
    -------
    (modes, N, N) complex64.
    """
    probe = data.probe.astype(np.complex128) * scaling.probe_scale
    if follow_offset:
        probe = probe * detector_ramp(scaling.detector_offset_px, data.N)
    if circular_mask:
        probe = probe * circle(data.N)
    return probe.astype(np.complex64)


def varying_probe_in_counts(data: ScanDataset, probe: ComplexArray) -> tuple[ComplexArray, ProbeVariation | None]:
    """A probe in counts with the variation of the scan's probe, if it is that probe.

    The energy of both together, averaged over the patterns, is that of the given probe.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64, the scan's own in any scale, with or without the detector's offset; or another, which
        comes back without a variation.
    """
    if (variation := data.probe_variation) is None:
        return probe, None
    scaling = fit_scaling(data)
    for follow in (False, True):
        own = probe_in_counts(data, scaling, follow_offset=follow)
        if own.shape == probe.shape and _correlation(own, probe) > _SAME:
            break
    else:
        return probe, None
    ramp = detector_ramp(scaling.detector_offset_px, data.N) if follow else 1.0
    factor = np.vdot(own, probe) / np.vdot(own, own) * scaling.probe_scale
    modes = variation.modes.astype(np.complex128) * (factor * ramp)
    energy = float((np.abs(probe.astype(np.complex128)) ** 2).sum())
    parts = np.concatenate([probe[:1], modes]).reshape(1 + len(modes), -1)
    weights = np.concatenate([np.ones((len(data), 1)), variation.weights], axis=1)
    overlaps = (parts.conj() @ parts.T).real
    change = float(np.sum(overlaps * (weights.T @ weights) / len(data)) - overlaps[0, 0])
    share = np.sqrt(energy / (energy + change))
    scaled = replace(variation, modes=(modes * share).astype(np.complex64))
    return (probe * np.float32(share)).astype(np.complex64), scaled


def _correlation(one: ComplexArray, other: ComplexArray) -> float:
    """Absolute correlation of two arrays of one shape."""
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(abs(np.vdot(one, other))) / norm if norm > 0 else 0.0


def circle(size: int) -> BoolArray:
    """(size, size) bool: the disc of diameter ``size`` outside which ``probe_mask`` sets a probe to 0."""
    r = np.arange(size) - (size - 1) / 2
    inside: BoolArray = r[:, None] ** 2 + r[None, :] ** 2 <= (size / 2) ** 2
    return inside
