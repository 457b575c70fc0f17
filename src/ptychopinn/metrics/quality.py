"""Quality without a reference: flatness and forward residual."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary, slices_of
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.errors import DataError
from ptychopinn.forward import COUNT_FLOOR, power
from ptychopinn.geometry import Canvas, Frame, Windows, split_positions
from ptychopinn.metrics.alignment import ScanBox
from ptychopinn.scan_model import ScanModel
from ptychopinn.typing import ComplexArray, FloatArray, IntArray

FLATNESS_LIMIT = 0.02  # an object with a smaller deviation has collapsed to a flat picture
RESIDUAL_PATTERNS = 256
"""Number of evenly spread patterns that the residual is computed from."""
_BATCH_VALUES = 2**17  # complex values of exit waves in memory at a time
_ROWS = 64
_CACHE_BYTES = 2**26  # for shifted probes and measured amplitudes


def flatness(obj: ComplexArray, box: ScanBox) -> float:
    """Deviation of an (H, W) complex object inside the scan box: ``sqrt(mean |O - mean O|^2)``.

    Below `FLATNESS_LIMIT` the object has collapsed. NaN if the object is not finite there.

    Raises
    ------
    DataError
        If the box holds no pixel.
    """
    inside = obj[box.slices]
    if inside.size == 0:
        raise DataError(
            "The box of scan positions holds no pixel of the object.",
            "Scan a larger area, or check that positions are in pixels of the object.",
        )
    mean = inside.mean(dtype=np.complex128)
    total = 0.0
    for row in range(0, len(inside), _ROWS):  # the object may be large
        away = inside[row : row + _ROWS] - mean
        total += float((away.real**2 + away.imag**2).sum())
    return math.sqrt(total / inside.size)


def forward_residual(
    obj: ComplexArray,
    origin: tuple[int, int],
    probe: ComplexArray,
    data: ScanDataset,
    *,
    indices: IntArray | None = None,
    max_patterns: int = 512,
) -> float:
    """Relative difference between the measured amplitudes and those that object and probe predict.

    ``R = sqrt(sum (A - A_model)^2 / sum A^2)`` over all pixels that are not bad, with ``A = sqrt(counts)``.

    Parameters
    ----------
    obj:
        (H, W) complex.
    origin:
        (y, x): pixel (0, 0) of ``obj`` in the frame of the scan's positions.
    probe:
        (modes, N, N) complex, scaled to counts.
    indices:
        (k,) integers, the patterns to use; None for all.
    max_patterns:
        Maximum number of patterns; they are evenly spread.

    Raises
    ------
    DataError
        If there is no pattern or no photon to compare with.
    """
    model = ScanModel(probe, data.positions)
    residual_of = ForwardResidual(model, Patterns(data), indices=indices, max_patterns=max_patterns)
    return residual_of(Canvas(obj, Frame(obj.shape, origin)))


class ForwardResidual:
    """`forward_residual` of one probe and one scan for several objects; shared data are cached if they are small.

    With the Poisson likelihood the residual is ``sqrt(D / 4 sum n)``, with half the deviance
    ``D / 2 = sum I - n + (n + c) log((n + c) / (I + c))``. For high counts it equals R. For low counts the mean of
    square roots is below the root of the mean, so R is smallest for a model that is too dark; the deviance is smallest
    for the true one.

    Parameters
    ----------
    model:
        Of the scan; its arrays are of the patterns' library.
    indices, max_patterns:
        As in `forward_residual`.
    """

    def __init__(
        self,
        model: ScanModel,
        patterns: Patterns,
        *,
        indices: IntArray | None = None,
        max_patterns: int = 512,
        likelihood: Likelihood = Likelihood.AMPLITUDE,
    ) -> None:
        self._library = library = patterns.library
        self._missed = _poisson_missed if likelihood is Likelihood.POISSON else _amplitudes_missed
        chosen = np.arange(len(patterns)) if indices is None else np.asarray(indices, np.int64)
        chosen = chosen[evenly_spread(len(chosen), max_patterns)]
        self._patterns, self._chosen = patterns, chosen
        self._probe_at, self._background = model.probe_at(library), model.background
        size = patterns.data.N
        self._positions = model.positions[chosen]
        _, fractions = split_positions(self._positions, size)
        self._fractions = library.from_host(fractions)
        roots = model.root_flux(chosen)
        self._roots = None if roots is None else library.from_host(roots)
        values = math.prod(model.exposed_probe(library).shape)
        step = library.batch_length(values, _BATCH_VALUES)
        self._batches = slices_of(len(chosen), step)
        small = len(chosen) * (values * 8 + size**2 * 4) <= _CACHE_BYTES
        self._cached = library.spread(self._prepare, self._batches) if small else None

    def _prepare(self, batch: slice) -> tuple[Array, Array]:
        """(b, modes, N, N) probes, and the `Patterns.amplitudes` (b, N, N), DC in the corner."""
        chosen = self._chosen[batch]
        measured = self._patterns.amplitudes(chosen)
        probes = self._probe_at(self._fractions[batch, ...], chosen)
        return probes if self._roots is None else probes * self._roots[batch][:, None, None, None], measured

    def __call__(self, canvas: Canvas) -> float:
        """R of an object; raises as `forward_residual` does."""
        return math.sqrt(self.shares(canvas).sum())

    def shares(self, canvas: Canvas) -> FloatArray:
        """What each pattern contributes to the square of R, (k,) float64; raises as `forward_residual` does.

        The object is of the patterns' library or on the host.
        """
        xp = self._library.xp

        def compare(intensity: Array, measured: Array, good: Array | None) -> tuple[Array, Array]:
            missed = self._missed(intensity, measured, good, self._library)
            return missed, xp.sum(measured * measured, axis=(1, 2), dtype=xp.float64)

        missed, measured = self._of_every_pattern(canvas, compare)
        total = float(measured.sum())
        if total <= 0:
            raise _no_photon(len(self._chosen))
        shares: FloatArray = missed / total
        return shares

    def light(self, canvas: Canvas) -> FloatArray:
        """(k,) float64: counts of each pattern divided by those that an object explains; 1 if it explains none."""
        xp = self._library.xp

        def add_up(intensity: Array, measured: Array, good: Array | None) -> tuple[Array, Array]:
            counts = intensity if good is None else intensity * good
            pair = (self._patterns.unsaturated(values, measured) for values in (counts, measured**2))
            modelled, seen = (xp.sum(values, axis=(1, 2), dtype=xp.float64) for values in pair)
            return modelled, seen

        modelled, seen = self._of_every_pattern(canvas, add_up)
        known = (modelled > 0) & (seen > 0)
        return np.where(known, seen / np.where(known, modelled, 1.0), 1.0)

    def _of_every_pattern(
        self, canvas: Canvas, look: Callable[[Array, Array, Array | None], tuple[Array, Array]]
    ) -> tuple[FloatArray, FloatArray]:
        """Two figures of each pattern, on the host.

        ``look`` computes them from the modelled intensities and the measured amplitudes of a batch, both (b, N, N), and
        from the map of what was measured.
        """
        library, xp = self._library, self._library.xp
        windows = Windows.on(canvas, self._positions, self._patterns.data.N, library)

        def of_batch(number: int) -> tuple[Array, Array]:
            batch = self._batches[number]
            probes, amplitudes = self._prepare(batch) if self._cached is None else self._cached[number]
            field = library.fft2(probes * windows[batch].cut(canvas.array)[:, None, ...], norm="ortho")
            intensity = power(field, library)
            if self._background is not None:
                intensity += self._background
            measured, good = self._patterns.measured(amplitudes)
            return look(self._patterns.recorded(intensity, measured), measured, good)

        found = library.spread(of_batch, range(len(self._batches)))
        if not found:
            raise _no_photon(0)
        first, second = (library.to_host(xp.concat([pair[k] for pair in found])) for k in (0, 1))
        return first, second


def deviations_above(shares: FloatArray, others: FloatArray) -> float:
    """How much higher one squared residual is than another, in standard errors over the (k,) patterns.

    Both are from `ForwardResidual.shares`, of the same patterns.
    """
    more = shares - others
    return float(more.sum()) / max(math.sqrt(len(more)) * float(more.std()), 1e-12)


def _no_photon(count: int) -> DataError:
    return DataError(
        f"{count} patterns without a photon cannot be compared with.",
        "Give patterns with counts outside the bad pixels.",
    )


def _amplitudes_missed(intensity: Array, measured: Array, good: Array | None, library: ArrayLibrary) -> Array:
    """(b,) float64, squared errors of the amplitudes of (b, N, N) float32 intensities."""
    xp = library.xp
    difference = xp.sqrt(intensity)
    difference -= measured
    if good is not None:
        difference *= good
    return xp.sum(difference * difference, axis=(1, 2), dtype=xp.float64)


def _poisson_missed(intensity: Array, measured: Array, good: Array | None, library: ArrayLibrary) -> Array:
    """Quarters of the Poisson deviances of counts with a floor; as `_amplitudes_missed`."""
    xp = library.xp
    counts = measured * measured
    floored = counts + COUNT_FLOOR
    off = (intensity - counts) / floored
    deviance = floored * xp.clip(off - xp.log1p(off), 0.0, None)  # it is negative only by rounding
    if good is not None:
        deviance *= good
    return xp.sum(deviance, axis=(1, 2), dtype=xp.float64) / 2
