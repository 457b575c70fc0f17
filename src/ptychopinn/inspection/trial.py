"""Try changes of a scan on a part of it, by a few passes that are judged by patterns they do not use.

The forward residual of these patterns shows whether patterns, positions and probe agree (`PassTrial`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.spatial import cKDTree

from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.data.subsampling import nearest_to_middle, thin_positions
from ptychopinn.forward import exit_waves, intensity
from ptychopinn.geometry import Canvas, flat_object
from ptychopinn.inspection.changes import Change
from ptychopinn.metrics.baselines import mean_pattern_residual, poisson_residual
from ptychopinn.metrics.quality import deviations_above
from ptychopinn.scan_model import ScanModel
from ptychopinn.simulate.probes import probe_width_px
from ptychopinn.solvers.epie import epie, frame_of, rpie_schedule
from ptychopinn.solvers.options import PassOptions
from ptychopinn.solvers.pass_trial import PassTrial
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray, IntArray

_MIN_WIDTH = 32  # pixels of a pattern
_COUNTS_KEPT = 0.95  # of all counts, in the middle of the detector that is used
_SPACING = 0.2  # of the probe's width: closer positions show the same
_HELD_OUT = 5  # every fifth pattern
_MODEL_PASSES = 8  # from which patterns are simulated
_CACHE_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Trial:
    """A change, and how the passes explain patterns with it."""

    change: Change
    shares: FloatArray  # (k,) float64: what each pattern left out contributes to the square of its forward residual

    @property
    def residual(self) -> float:
        """Forward residual R of the patterns that the passes did not use."""
        return math.sqrt(float(self.shares.sum()))

    def deviations_above(self, other: Trial) -> float:
        """How much worse this explains the patterns than another trial, in standard errors over the patterns."""
        return deviations_above(self.shares, other.shares)


class TrialPatch:
    """Some patterns in the middle of a scan, at the lowest resolution that has nearly all their counts.

    Parameters
    ----------
    data:
        The scan, with at least 9 patterns.
    probe:
        (modes, N, N) complex64 in counts; None takes the scan's.

    Attributes
    ----------
    mean_residual:
        R of the mean pattern as a model of every pattern that is left out: what anything has to surpass.
    noise_residual:
        R that Poisson noise leaves for a perfect model.
    overlap:
        ``1 - distance / width``: distance of a pattern left out from the nearest used one (median), full width at half
        maximum of the probe.
    """

    def __init__(
        self,
        data: ScanDataset,
        probe: ComplexArray | None = None,
        *,
        count: int = 120,
        passes: int = 3,
    ) -> None:
        self._passes = passes
        width = probe_width_px(data.probe if probe is None else probe)
        spaced = thin_positions(data.positions, _SPACING * width)
        spaced = spaced if len(spaced) >= min(count, len(data)) // 2 else np.arange(len(data))
        self._chosen: IntArray = spaced[nearest_to_middle(data.positions[spaced], count)]
        counts = data.counts(self._chosen)
        if probe is None:
            probe = probe_in_counts(data, fit_scaling(data), follow_offset=True)
        self.width = _width(counts.sum(axis=0))
        low = (data.N - self.width) // 2
        self._inner = inner = slice(low, low + self.width)
        self._counts: FloatArray = np.ascontiguousarray(counts[:, inner, inner])
        self._bad: BoolArray = data.bad_pixels[inner, inner]
        bad_values = None if data.bad_values is None else data.bad_values.select(self._chosen)
        if bad_values is not None:
            bad_values = bad_values.changed(lambda masks: masks[:, inner, inner], self._bad.shape)
        self._bad_values = bad_values
        self._probe = _coarser(probe, inner)
        # The first pixel of a window is the same place at both resolutions.
        ratio = self.width / data.N
        self._positions: FloatArray = (data.positions - (data.N - 1) / 2) * ratio + (self.width - 1) / 2
        held = np.zeros(len(self._chosen), bool)
        held[np.random.default_rng(0).permutation(len(held))[: max(len(held) // _HELD_OUT, 1)]] = True
        self._used, self._held = np.flatnonzero(~held), np.flatnonzero(held)
        places = data.positions[self._chosen]
        distance, _ = cKDTree(places[self._used]).query(places[self._held])
        self.overlap = 1 - float(np.median(distance)) / width
        self._set_limits()

    def _set_limits(self) -> None:
        good = ~self._bad
        self.mean_residual = mean_pattern_residual(self._counts[self._held], good)
        self.noise_residual = poisson_residual(self._counts, good)

    def __len__(self) -> int:
        """Number of patterns."""
        return len(self._chosen)

    @property
    def is_lit(self) -> bool:
        """Whether the patterns that are used and those left out have counts, so that trials can be made."""
        return all(bool(self._counts[numbers].any()) for numbers in (self._used, self._held))

    def explained(self, trial: Trial) -> float:
        """Share of what can be explained that a trial explains: 0 for the mean pattern, 1 for noise alone."""
        return explained_share(trial.residual, self.mean_residual, self.noise_residual)

    def trial(self, change: Change, *, free_probe: bool = False, other_probe: ComplexArray | None = None) -> Trial:
        """Make the passes with a change, with the probe fixed or free.

        Parameters
        ----------
        other_probe:
            (modes, N, N) complex64 in counts, instead of the patch's own.
        """
        coarse = self._probe if other_probe is None else _coarser(other_probe, self._inner)
        scan = self._scan(change, coarse)
        frame = frame_of(scan)
        passes = PassTrial(
            Patterns(scan, host_budget_bytes=_CACHE_BYTES),
            self._used,
            self._held,
            Canvas(flat_object(frame), frame),
            self._passes,
        )
        options = PassOptions(rpie_schedule(self._passes), update_probe=free_probe)
        return Trial(change, passes.shares(ScanModel(scan.probe, scan.positions), options))

    def _scan(self, change: Change, probe: ComplexArray) -> ScanDataset:
        """The part with a change, and a probe of its resolution."""
        turn, bad_values = change.patterns.of_patterns, self._bad_values
        return ScanDataset(
            patterns=turn(self._counts),
            measurement=Measurement.COUNTS,
            positions=change.of_positions(self._positions)[self._chosen],
            probe=np.ascontiguousarray(change.of_probe(probe)),
            bad_pixels=turn(self._bad),
            bad_values=None if bad_values is None else bad_values.changed(turn, bad_values.size),
        )

    def simulate(self, *, free_probe: bool) -> None:
        """Replace the patterns by simulated ones, which agree with positions and probe.

        They are of the object that passes over all patterns of the part find.
        """
        scan = self._scan(Change(), self._probe)
        options = PassOptions(rpie_schedule(_MODEL_PASSES), update_probe=free_probe)
        patterns = Patterns(scan, host_budget_bytes=_CACHE_BYTES)
        found = epie(patterns, scan.probe, passes=_MODEL_PASSES, options=options)
        expected = intensity(exit_waves(found.object, found.probe, found.frame.local(scan.positions)))
        self._counts = np.random.default_rng(0).poisson(expected).astype(np.float32)
        self._bad_values, self._probe = None, found.probe
        self._set_limits()


def explained_share(residual: float, nothing: float, noise: float) -> float:
    """Share of what noise allows to explain: 0 at the residual ``nothing``, 1 at ``noise``.

    It is negative for a residual above ``nothing``, and NaN if ``nothing`` is no more than ``noise``.
    """
    room = nothing**2 - noise**2
    return (nothing**2 - residual**2) / room if room > 0 else math.nan


def _width(pattern: AnyArray) -> int:
    """Half, a quarter, ... of the width of a pattern, as long as its middle has nearly all counts."""
    size = len(pattern)
    width, total = size, float(pattern.sum())
    while width % 2 == 0 and width // 2 >= _MIN_WIDTH:
        low = (size - width // 2) // 2
        inner = slice(low, low + width // 2)
        if float(pattern[inner, inner].sum()) < _COUNTS_KEPT * total:
            break
        width //= 2
    return width


def _coarser(probe: ComplexArray, inner: slice) -> ComplexArray:
    """A probe (modes, N, N) at the resolution of the inner (M, M) pixels of the detector: (modes, M, M)."""
    field = np.fft.fftshift(scipy.fft.fft2(probe, norm="ortho"), axes=(-2, -1))[..., inner, inner]
    coarse: ComplexArray = scipy.fft.ifft2(np.fft.ifftshift(field, axes=(-2, -1)), norm="ortho").astype(np.complex64)
    return coarse
